package ublk

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Apart is another process that serves the queues of a device. It needs no privilege, and
// nothing but the open character device. This process keeps the control of the device. A device
// with Options.Threads is one of several that the process serves: only the end of the process
// leaves such a device.
type Apart interface {
	// Serve passes the queues to the process, which serves them with the open character
	// device. When it returns nil, the process has fetched all tags. The channel then receives
	// one value when all queues have ended: nil after a Stop. After an error, the process has
	// ended.
	Serve(charFD int, queues QueueTask) (ended <-chan error, err error)
	// Kill ends the process at once. The driver fails its requests, or keeps them for the next
	// server. It is not called for a device with Options.Threads.
	Kill()
}

// QueueTask describes the queues of a device to the process that serves them.
type QueueTask struct {
	Info       Info
	CPUs       [][]byte // of each queue, in the form of the driver
	Files      int      // Options.Files
	ExtraParts int      // Options.ExtraParts
	// Untrusted says that the threads must not have CAP_SYS_ADMIN (Options.NoPartScan).
	Untrusted bool
	// NewRing makes the rings of threads of their own (Threads.SetNewRing). The process sets it.
	NewRing NewRing `json:"-"`
}

// StartApart is [Device.Start] with queues in another process. The device's Stats stay zero.
// Without CAP_SYS_ADMIN in that process, the kernel finds no partitions, unless the driver has
// UBLK_F_NO_AUTO_PART_SCAN.
func (d *Device) StartApart(a Apart) error {
	return d.startBy(func() error {
		err := d.serveApart(a)
		if err != nil {
			close(d.done)
		}
		return err
	})
}

func (d *Device) serveApart(a Apart) error {
	task := QueueTask{Info: d.info, Files: d.files, ExtraParts: d.extraParts, Untrusted: d.untrusted}
	for i := range d.info.Queues {
		cpus, err := d.affinity(i)
		if err != nil {
			return err
		}
		task.CPUs = append(task.CPUs, []byte(cpus))
	}
	ended, err := a.Serve(d.charFD, task)
	if err != nil {
		return err
	}
	d.apart = a
	go d.waitApart(ended)
	return nil
}

// waitApart does what wait does for queues of this process.
func (d *Device) waitApart(ended <-chan error) {
	d.err = <-ended
	if err := closeFD(&d.charFD); err != nil && d.err == nil {
		d.err = err
	}
	close(d.done)
}

// ServedQueues are the queues of a device that another process controls.
type ServedQueues struct {
	dev *Device
}

// ServeQueues is the other side of [Apart]: it serves the queues of a task. It takes over charFD,
// which stays open until the queues have ended. threads serve the queues; nil for threads of their
// own.
func ServeQueues(charFD int, task QueueTask, target Target, threads *Threads) (*ServedQueues, error) {
	if len(task.CPUs) != int(task.Info.Queues) {
		_ = closeFD(&charFD)
		return nil, fmt.Errorf("serve %d queues with the CPUs of %d: %w", task.Info.Queues, len(task.CPUs), unix.EINVAL)
	}
	if threads == nil {
		threads = ownThreads()
		threads.SetNewRing(task.NewRing)
	}
	d := newDevice(nil, task.Info, RecoverOptions{Threads: threads, Files: task.Files, ExtraParts: task.ExtraParts})
	d.charFD, d.untrusted, d.started = charFD, task.Untrusted, true
	for _, cpus := range task.CPUs {
		d.cpus = append(d.cpus, cpuMask(cpus))
	}
	if err := d.startQueues(target); err != nil {
		d.kill()
		select {
		case <-d.done:
			_ = closeFD(&d.charFD)
		default: // wait closes it
		}
		return nil, fmt.Errorf("serve device %d: %w", d.info.ID, err)
	}
	return &ServedQueues{d}, nil
}

// Hold is [Device.Hold]. The other process has opened OpenInFlight for it.
func (s *ServedQueues) Hold(patience time.Duration, inFlight *InFlight) (resume func(), err error) {
	return s.dev.hold(patience, inFlight)
}

// OnThreads is [Device.OnThreads].
func (s *ServedQueues) OnThreads(f func(Handler) error) error { return s.dev.OnThreads(f) }

// Stats is [Device.Stats].
func (s *ServedQueues) Stats() Stats { return s.dev.Stats() }

// Done is [Device.Done].
func (s *ServedQueues) Done() <-chan struct{} { return s.dev.Done() }

// Wait waits until all queues have ended. It returns nil after a Stop.
func (s *ServedQueues) Wait() error {
	<-s.dev.done
	return s.dev.err
}
