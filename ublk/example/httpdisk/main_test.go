package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// numbers has its own position in every eight bytes.
type numbers struct{}

func (numbers) ReadAt(p []byte, off int64) (int, error) {
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], uint64(off)+uint64(i))
	}
	return len(p), nil
}

// A read of the disk has the image's bytes, and fails if the server sends another part.
func TestKernelHTTPDisk(t *testing.T) {
	ublktest.Kernel(t)
	careless := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-careless:
			_, _ = io.Copy(w, io.NewSectionReader(numbers{}, 0, 4<<20)) // whatever it was asked for
		default:
			http.ServeContent(w, r, "disk.img", time.Time{}, io.NewSectionReader(numbers{}, 0, 1<<30))
		}
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	ublktest.Program(t, main, []string{server.Listener.Addr().String(), "/disk.img"}, func(disk string) {
		f, err := os.Open(disk)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		const middle, part = 512 << 20, 1 << 20
		got := make([]byte, part)
		if _, err := f.ReadAt(got, middle); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < part; i += 8 {
			if n := binary.LittleEndian.Uint64(got[i:]); n != middle+uint64(i) {
				t.Fatalf("byte %d of the disk is byte %d of the image", middle+i, n)
			}
		}
		close(careless)
		if _, err := f.ReadAt(got, 3*middle/2); !errors.Is(err, unix.EIO) {
			t.Errorf("read of another part: error %v, want EIO", err)
		}
	})
}
