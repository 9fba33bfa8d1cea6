package driver

import (
	"context"
	"time"
)

// wakeMerger makes mergeInBackground look for layers.
func (d *Driver) wakeMerger() {
	select {
	case d.unmerged <- struct{}{}:
	default:
	}
}

// mergePause is the time after which layers are merged again that could not be merged, such as
// because serve was being started or the pool had no space. It grows with each further error, because a merge may have read and
// written much before an error of the disk.
const (
	mergePause        = 5 * time.Second
	longestMergePause = 10 * time.Minute
)

// mergeInBackground merges layers after each call of wakeMerger, until the context ends.
func (d *Driver) mergeInBackground(ctx context.Context) {
	var again <-chan time.Time
	var last string // error that was reported
	pause := mergePause
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.unmerged:
		case <-again:
		}
		again = nil
		if err := d.Reconcile(ctx); err != nil {
			continue // the call that reconciles the pool wakes it again
		}
		err := d.mergeLayers(ctx)
		if err == nil || ctx.Err() != nil {
			last, pause = "", mergePause
			continue
		}
		again = time.After(pause)
		pause = min(2*pause, longestMergePause)
		if text := err.Error(); text != last {
			last = text
			d.opts.Report(err)
		}
	}
}
