package ublk_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// store is a slow place with the blocks of a disk. Several can be fetched at a time.
type store struct{ requests chan ublk.AsyncRequest }

func (s store) Handle(req *ublk.Request) {
	if req.Op != ublk.OpRead {
		req.Complete(unix.EROFS)
		return
	}
	s.requests <- req.Async() // has room for all requests, because Handle must not wait
}

func (s store) NewHandler(*ublk.Queue) (ublk.Handler, error) { return s, nil }

// fetch answers requests.
func (s store) fetch() {
	for r := range s.requests {
		time.Sleep(time.Millisecond)
		for i := range r.Data() {
			r.Data()[i] = byte((r.Offset() + uint64(i)) >> 12)
		}
		r.Complete(nil)
	}
}

// Goroutines answer the requests of a disk, in any order.
func ExampleRequest_Async() {
	const queues, depth = 1, 32
	s := store{make(chan ublk.AsyncRequest, queues*depth)}
	defer close(s.requests)
	for range 4 {
		go s.fetch()
	}
	ctx, stop := context.WithCancel(context.Background())
	err := ublk.Serve(ctx, s, ublk.ServeOptions{
		Options: ublk.Options{Queues: queues, Depth: depth},
		Params:  ublk.Params{Size: 1 << 20, ReadOnly: true},
		Ready: func(dev *ublk.Device) {
			got, err := os.ReadFile(dev.BlockPath())
			fmt.Println(len(got), "bytes, error", err)
			fmt.Println("block 3:", bytes.Count(got[3<<12:4<<12], []byte{3}), "bytes of 3")
			stop()
		},
	})
	fmt.Println("serve:", err)
}
