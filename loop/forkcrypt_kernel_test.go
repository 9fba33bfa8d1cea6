package loop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// coverStart is where the encrypted data of a file begins, in sectors.
const coverStart = 64

// newCovered makes a device of one crypt line over a file.
func newCovered(t *testing.T, attach func(text string) *Device) *layered {
	t.Helper()
	l := &layered{T: t, dir: mountTmpfs(t)}
	l.cover = fmt.Sprintf("0 %d crypt aes-xts-plain64 %s 4 $0 %d", plainSectors-coverStart, hexKey, coverStart)
	l.chain = []string{filepath.Join(l.dir, "base")}
	if err := os.WriteFile(l.chain[0], random(make([]byte, layeredSize)), 0o600); err != nil {
		t.Fatal(err)
	}
	l.dev = attach(withDisks(l.cover, l.chain[0]))
	l.cover = strings.ReplaceAll(l.cover, hexKey, ":64:user:ublk-loop") // as the device has it from then on
	return l
}

// An encrypted device gets stores while it is written to. They are below the encryption: no file has
// data as the device shows it, and a device of the same files and the key shows what was written. Layers
// are merged as those of other devices. The key is in no state.
func TestKernelForkEncrypted(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	for _, cfg := range []Config{{}, {OnCrash: CrashReissue}} {
		t.Run(fmt.Sprint("on crash ", cfg.OnCrash), func(t *testing.T) {
			l := newCovered(t, func(text string) *Device { return attachTable(t, ctl, text, cfg) })
			model := readDisk(t, openFile(t, l.dev.Path(), os.O_RDONLY))
			var stop atomic.Bool
			wait := sync.OnceFunc(blockWriters(t, l.dev.Path(), model, &stop))
			defer func() {
				stop.Store(true)
				wait()
			}()
			before := contentOf(t, l.chain[0])
			waitUntil(t, "some writes", func() bool { return !bytes.Equal(contentOf(t, l.chain[0]), before) })
			l.fork()
			frozen := contentOf(t, l.chain[0])
			waitUntil(t, "some exceptions", func() bool { return usedSectors(t, l.dev) > 64 })
			if !bytes.Equal(contentOf(t, l.chain[0]), frozen) {
				t.Error("the file below the store changes")
			}
			refuseWriters(t, Config{}, ctl, l.chain[0], l.chain[1])
			l.fork()
			used := usedSectors(t, l.dev)
			waitUntil(t, "more exceptions", func() bool { return usedSectors(t, l.dev) > used })
			l.fork()
			unused := l.mergeStores()
			if err := l.reload(); err != nil {
				t.Fatal(err)
			}
			unused = append(unused, l.mergeBase()...)
			if err := l.reload(); err != nil {
				t.Fatal(err)
			}
			for _, path := range unused {
				l.isFree(path)
			}
			stop.Store(true)
			wait()
			l.shows(l.dev, model)
			l.hasNoPlainText(model)
			saved, err := readState(l.dev.ID())
			if err != nil || strings.Contains(fmt.Sprintf("%+v", saved), hexKey) {
				t.Errorf("the state is %+v, error %v", saved, err)
			}
			if err := l.dev.Close(); err != nil {
				t.Fatal(err)
			}
			again := attachTable(t, ctl, strings.ReplaceAll(l.text(), ":64:user:ublk-loop", hexKey), cfg)
			l.shows(again, model)
		})
	}
}

// shows fails the test unless a device has some data.
func (l *layered) shows(dev *Device, want []byte) {
	l.Helper()
	if !bytes.Equal(readDisk(l.T, openFile(l.T, dev.Path(), os.O_RDONLY|unix.O_DIRECT)), want) {
		l.Error("the device has other data")
	}
}

// hasNoPlainText fails the test if a file has a block as the device shows it.
func (l *layered) hasNoPlainText(shown []byte) {
	l.Helper()
	blocks := map[string]bool{}
	for at := 0; at < len(shown); at += 512 {
		blocks[string(shown[at:at+512])] = true
	}
	files, err := filepath.Glob(filepath.Join(l.dir, "*"))
	if err != nil || len(files) < len(l.chain) {
		l.Fatalf("%d files, error %v", len(files), err)
	}
	for _, path := range files {
		data := contentOf(l.T, path)
		for at := 0; at+512 <= len(data); at += 512 {
			if blocks[string(data[at:at+512])] && !bytes.Equal(data[at:at+512], make([]byte, 512)) {
				l.Errorf("%s has plain text at %d", path, at)
				break
			}
		}
	}
}
