package ublk_test

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// ramDisk answers requests from memory. The handlers of all queues share it. It needs no lock,
// because users of a disk wait for a write before they read its blocks.
type ramDisk []byte

func (d ramDisk) NewHandler(*ublk.Queue) (ublk.Handler, error) { return d, nil }

func (d ramDisk) Handle(req *ublk.Request) {
	switch req.Op {
	case ublk.OpRead:
		copy(req.Data(), d[req.Offset():])
	case ublk.OpWrite:
		copy(d[req.Offset():], req.Data())
	case ublk.OpFlush: // memory has no cache
	default:
		req.Complete(unix.EOPNOTSUPP)
		return
	}
	req.Complete(nil)
}

// A RAM disk of 8 MiB with its own handler. The program writes to the disk and ends it.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	disk := make(ramDisk, 8<<20)
	hello := bytes.Repeat([]byte("hello "), 1000)
	err := ublk.Serve(ctx, disk, ublk.ServeOptions{
		Params: ublk.Params{Size: uint64(len(disk))},
		Ready: func(dev *ublk.Device) {
			fmt.Println("write:", writeDurably(dev.BlockPath(), hello))
			stop()
		},
	})
	fmt.Println("serve:", err)
	fmt.Println("the disk has the bytes:", bytes.HasPrefix(disk, hello))
}

// writeDurably writes to a disk and flushes it. A close alone writes the page cache only if no
// one else has the disk open, and the kernel may have it open.
func writeDurably(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}
