package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// sameProcess serves a device as another process does.
type sameProcess struct {
	t      *testing.T
	served *serving.Served
	refuse map[serving.Op]error // requests that do not arrive
}

func (p *sameProcess) Serve(w *serving.Work) (<-chan error, error) {
	own := *w
	own.FDs = p.copies(w.FDs)
	var err error
	if p.served, err = own.Serve(p.t.Context(), nil); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.served.Wait() }()
	return ended, nil
}

func (p *sameProcess) Ask(ctx context.Context, r *serving.Request) (serving.Answer, error) {
	if err := p.refuse[r.Op]; err != nil {
		return serving.Answer{}, err
	}
	own := *r
	own.FDs = p.copies(r.FDs)
	return p.served.Answer(ctx, &own)
}

func (p *sameProcess) Kill()   { p.t.Error("the process is killed") }
func (p *sameProcess) Unused() { p.t.Error("the process has no work") }

func (p *sameProcess) copies(fds []int) (list []int) {
	for _, fd := range fds {
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			p.t.Error(err)
		}
		list = append(list, fd)
	}
	return list
}

// A fork that fails, and whose Undo does not reach the process that serves the requests, leaves nothing there:
// the next fork or reload is not served from its store, which has no name any more.
func TestKernelForkAfterLostUndo(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	dir := mountTmpfs(t)
	base, path := sparseFile(t, dir), func(name string) string { return filepath.Join(dir, name) }
	p := &sameProcess{t: t}
	newStore(t, path("old"), 8192, 8<<20)
	text := fmt.Sprintf("0 8192 snapshot %s %s P 16", base, path("old"))
	var files []*os.File
	for _, name := range []string{base, path("old")} {
		file, err := OpenTableDevice(name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		files = append(files, file)
	}
	dev, err := AttachApart(ctl, files, Config{Table: text}, p)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		p.refuse = map[serving.Op]error{serving.Hold: unix.EIO, serving.Undo: unix.EMFILE}
		if _, err := dev.Fork(newStore(t, path(fmt.Sprint("refused", i)), 8192, 8<<20)); !errors.Is(err, unix.EIO) || !errors.Is(err, unix.EMFILE) {
			t.Fatalf("fork: %v, want EIO and EMFILE", err)
		}
		p.refuse = nil
		if _, err := dev.Fork(newStore(t, path(fmt.Sprint("new", i)), 8192, 8<<20)); err != nil {
			t.Fatal(err)
		}
		changeDisk(t, openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT), 4<<20)
	}
	want := readDisk(t, openFile(t, dev.Path(), os.O_RDONLY|unix.O_DIRECT))
	table := dev.Status().Table
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	again := openFile(t, attachTable(t, ctl, table, Config{}).Path(), os.O_RDONLY|unix.O_DIRECT)
	if got := readDisk(t, again); !bytes.Equal(got, want) {
		t.Fatal(firstDifference(got, want))
	}
}
