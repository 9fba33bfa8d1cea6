package ublk_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// A read-only disk over an io.ReaderAt. Here it is a string. It could be an image inside an
// archive, or an object on a server.
func ExampleNewDisk() {
	text := strings.Repeat("every sector says the same. ", 4096)
	image := io.NewSectionReader(strings.NewReader(text), 0, 64<<10)
	ctx, stop := context.WithCancel(context.Background())
	err := ublk.Serve(ctx, ublk.NewDisk(image), ublk.ServeOptions{
		Params: ublk.Params{Size: uint64(image.Size())},
		Ready: func(dev *ublk.Device) {
			got, err := os.ReadFile(dev.BlockPath())
			fmt.Println(len(got), "bytes, error", err)
			fmt.Println("the same:", bytes.Equal(got, []byte(text[:64<<10])))
			stop()
		},
	})
	fmt.Println("serve:", err)
}
