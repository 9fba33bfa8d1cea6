package ublk_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk"
)

const stripeBytes = 64 << 10

// stripe spreads a disk over files. The stripes go to the files in turn.
type stripe []*os.File

func (s stripe) NewHandler(q *ublk.Queue) (ublk.Handler, error) {
	h := &stripeHandler{flushes: make([]flush, q.Depth())}
	for _, f := range s {
		file, err := q.RegisterFile(int(f.Fd()))
		if err != nil {
			return nil, err
		}
		h.files = append(h.files, file)
	}
	return h, nil
}

// stripeHandler serves one queue.
type stripeHandler struct {
	files   []ublk.File
	flushes []flush // by tag
}

// flush is the progress of a flush.
type flush struct {
	left  int   // files whose fsync has not ended
	errno int32 // of the first fsync that failed
}

func (h *stripeHandler) Handle(req *ublk.Request) {
	if req.Op == ublk.OpFlush {
		h.flushes[req.Tag()] = flush{left: len(h.files)}
		for _, f := range h.files {
			req.SQE().PrepFsync(f.File, ring.IORING_FSYNC_DATASYNC)
		}
		return
	}
	// No request crosses the boundary of a stripe, because of Params.ChunkBytes.
	n, within := req.Offset()/stripeBytes, req.Offset()%stripeBytes
	files := uint64(len(h.files))
	req.ForwardAndComplete(h.files[n%files], n/files*stripeBytes+within)
}

// Done receives the result of each file's fsync.
func (h *stripeHandler) Done(req *ublk.Request, result int32) {
	f := &h.flushes[req.Tag()]
	if result < 0 && f.errno == 0 {
		f.errno = result
	}
	if f.left--; f.left == 0 {
		req.CompleteErrno(f.errno)
	}
}

// A disk of two files. The kernel moves the data without a copy if it can.
func ExampleRequest_ForwardAndComplete() {
	files := stripe{tempFile(), tempFile()}
	ctx, stop := context.WithCancel(context.Background())
	data := append(bytes.Repeat([]byte{'0'}, stripeBytes), bytes.Repeat([]byte{'1'}, stripeBytes)...)
	err := ublk.Serve(ctx, files, ublk.ServeOptions{
		Options: ublk.Options{Mode: ublk.BufferFastest, MaxIOBytes: stripeBytes},
		Params:  ublk.Params{Size: 16 * stripeBytes, ChunkBytes: stripeBytes, VolatileCache: true},
		Ready: func(dev *ublk.Device) {
			fmt.Println("write:", writeDurably(dev.BlockPath(), append(data, data...)))
			stop()
		},
	})
	fmt.Println("serve:", err)
	for i, f := range files {
		got := make([]byte, 2*stripeBytes)
		_, err := f.ReadAt(got, 0)
		fmt.Println("file", i, "error", err, "bytes", bytes.Count(got, []byte{'0' + byte(i)}))
	}
}

// tempFile returns a file of 512 KiB without a name.
func tempFile() *os.File {
	f, err := os.CreateTemp("", "stripe")
	if err != nil {
		log.Fatal(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		log.Fatal(err)
	}
	if err := f.Truncate(8 * stripeBytes); err != nil {
		log.Fatal(err)
	}
	return f
}
