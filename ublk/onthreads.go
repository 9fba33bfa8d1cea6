package ublk

// OnThreads calls a function for the handler of each queue, on the queue's thread, one after
// another. It stops at the first error, and returns it. The function must not block.
func (d *Device) OnThreads(f func(Handler) error) error {
	for _, q := range d.queues {
		if err := q.thread.do(func() error { return f(q.handler) }); err != nil {
			return err
		}
	}
	return nil
}
