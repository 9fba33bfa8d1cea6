package ublk_test

import (
	"context"
	"fmt"

	"github.com/ublk-loop/ublk-loop/ublk"
)

type null struct{}

func (null) ReadAt(p []byte, _ int64) (int, error)  { clear(p); return len(p), nil }
func (null) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// A disk of 1 TiB that reads as zeroes and forgets what is written.
func ExampleServe() {
	ctx, stop := context.WithCancel(context.Background())
	err := ublk.Serve(ctx, ublk.NewDisk(null{}), ublk.ServeOptions{
		Params: ublk.Params{Size: 1 << 40},
		Ready: func(dev *ublk.Device) {
			fmt.Println("write:", writeDurably(dev.BlockPath(), []byte("forgotten")))
			stop() // a server gets ctx from signal.NotifyContext instead
		},
	})
	fmt.Println("serve:", err)
}
