// Program null makes a disk of 1 TiB that reads as zeroes and forgets what is written,
// until it is interrupted.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"

	"github.com/ublk-loop/ublk-loop/ublk"
)

type null struct{}

func (null) ReadAt(p []byte, _ int64) (int, error)  { clear(p); return len(p), nil }
func (null) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func main() {
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt)
	if err := ublk.Serve(ctx, ublk.NewDisk(null{}), ublk.ServeOptions{Params: ublk.Params{Size: 1 << 40}}); err != nil {
		log.Fatal(err)
	}
}
