package ublk_test

import (
	"bytes"
	"fmt"
	"log"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// ramDisk answers requests out of memory. Handlers of all queues share it:
// the block layer orders what must be ordered.
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

// A RAM disk of 8 MiB, written and read back.
func Example() {
	ctl, err := ublk.OpenControl()
	if err != nil {
		log.Fatal(err)
	}
	defer ctl.Close()
	dev, err := ctl.Add(ublk.Options{Mode: ublk.BufferCopy})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	disk := make(ramDisk, 8<<20)
	if err := dev.SetParams(ublk.Params{Size: uint64(len(disk))}); err != nil {
		log.Fatal(err)
	}
	if err := dev.Start(disk); err != nil {
		log.Fatal(err)
	}
	hello := bytes.Repeat([]byte("hello "), 1000)
	if err := writeDurably(dev.BlockPath(), hello); err != nil {
		log.Fatal(err)
	}
	if err := dev.Close(); err != nil { // the handlers have ended: the memory is ours again
		log.Fatal(err)
	}
	fmt.Println(bytes.HasPrefix(disk, hello))
}

// writeDurably does not rely on close, which writes what is in the page cache
// only if nobody else, be it the kernel, has the device open.
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
