package ublk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Stop removes the disk. The kernel writes dirty pages first, so the queues serve
// requests until Stop returns. Then the queues end, and Done closes.
func (d *Device) Stop() error {
	return d.ctl.Stop(d.info.ID)
}

// Close stops the device if it is live, waits until its queues have ended, and deletes it.
// A process that has the disk open keeps the rest of it until it closes the disk. Close
// may be called again. If Options.Tag was given, Close leaves a device that has the id with
// another tag, and all devices if the driver does not tell the tag.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	err := d.end()
	if errors.Is(err, ErrServed) {
		return err
	}
	d.closed = true
	return errors.Join(err, closeFD(&d.charFD), ignoreGone(d.deleteOwn()))
}

// deleteOwn deletes the device, unless another process has deleted it and its id is another
// device's. The caller has closed the character device, which kept the id.
func (d *Device) deleteOwn() error {
	if d.info.Tag != 0 {
		now, err := d.Now()
		if err != nil || now.Tag != d.info.Tag {
			return err
		}
	}
	return d.ctl.Delete(d.info.ID)
}

// End stops the device if it is live and waits until its queues have ended. The device
// keeps its id until Close, which does the same first. The error of both wraps ErrServed
// if the driver does not stop a device on Threads. Such a device is unchanged.
func (d *Device) End() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	return d.end()
}

func (d *Device) end() error {
	if !d.started {
		return nil
	}
	var err error
	select {
	case <-d.done: // a flush needs the queues, and they have ended
	default:
		if err = ignoreGone(d.Stop()); err == nil {
			break
		}
		if !d.threads.alone {
			return fmt.Errorf("%w: %w", ErrServed, err)
		}
		d.kill() // nothing else would end the queues
	}
	<-d.done
	return err
}

// Leave stops serving a device at once, as the end of this process would, and answers no
// more requests. With UBLK_F_USER_RECOVERY the disk stays, and its I/O waits for a server
// (Control.Recover). Without it the driver removes the disk, and the device is dead. Leave may
// be called again. After Close it does nothing.
//
// Leave does not wait for operations on files that the queues have in flight. A write may then come
// after those of the next server. Such an operation keeps the files open that the queue has
// registered (Queue.RegisterFile), so a lock of one of them shows its end.
//
// After Start, only the end of this process leaves a device on Threads. Leave then returns an
// error that wraps ErrServed.
func (d *Device) Leave() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	if d.started && !d.threads.alone {
		select {
		case <-d.done:
		default:
			return fmt.Errorf("leave device %d: %w", d.info.ID, ErrServed)
		}
	}
	d.closed = true
	if d.started {
		d.kill()
		<-d.done
	}
	return closeFD(&d.charFD)
}

// ignoreGone drops the errors that say that a device is gone, which was the aim.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, ErrLingers) {
		return nil
	}
	return err
}

func closeFD(fd *int) error {
	if *fd < 0 {
		return nil
	}
	err := unix.Close(*fd)
	*fd = -1
	return err
}

// disarm counts a tag that the driver has ended. The last one ends the queue.
func (q *Queue) disarm() {
	if q.armed--; q.armed > 0 {
		return
	}
	go func() { // ends when the thread has removed the queue, or has ended
		_ = q.leave(func() { q.ended <- nil })
	}()
}

// leave removes the queue and everything it has from its thread, and then calls left on the
// thread. No entry of the queue may be in flight. If the thread ends first, it reports the
// end of the queue instead.
func (q *Queue) leave(left func()) error {
	t := q.thread
	if q.bufs != nil {
		_ = q.bufs.unregister(t.ring, t.do) // the end of the ring removes what is left
	}
	return t.do(func() error {
		q.drop()
		left()
		return nil
	})
}

// drop removes the queue from its thread.
func (q *Queue) drop() {
	q.endTurn()
	// The table must not keep the handler's files open.
	for i := range q.files {
		_ = q.thread.ring.UpdateFile(uint32(q.firstFile()+i), -1)
	}
	q.unmap()
	q.thread.remove(q)
}

// unmap unmaps the descriptors, which keep /dev/ublkcN busy. From then on the queue takes no
// results of other goroutines.
func (q *Queue) unmap() {
	if q.async != nil {
		q.async.stop()
	}
	if q.mapped != nil {
		_ = unix.Munmap(q.mapped)
		q.mapped, q.descs = nil, nil
	}
}

// freeBuffers frees the buffers of a queue that has ended. Operations that are in flight after
// a kill do no harm: the kernel has pinned the pages of the buffers, so an operation writes to
// these, and not to memory that is mapped at the same address later.
func (q *Queue) freeBuffers() {
	switch {
	case q.bufs == nil:
	case q.async != nil:
		q.async.end(q.bufs)
	default:
		q.bufs.free()
	}
}
