package stack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// reload gives a stack other tables, before it serves a device.
func reload(t *testing.T, dir, text string) func(s *Stack) {
	return func(s *Stack) {
		t.Helper()
		tables, err := Parse([]byte(inDir(dir, text)), false)
		if err != nil {
			t.Fatal(err)
		}
		var files []*os.File
		for _, device := range tables.Devices() {
			file, err := backing.OpenPath(device)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			files = append(files, file)
		}
		r, err := s.Reload(tables, files, &Options{LockDir: filepath.Join(dir, "locks"), DirectIO: backing.SwitchOff, Shared: true})
		if err != nil {
			t.Fatal(err)
		}
		r.Apply()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The new base may be longer or shorter than the one before, behind the end of the device. A first write to
// the last chunk copies what the new one has.
func TestReloadWithBaseOfOtherSize(t *testing.T) {
	const sectors, text = 500, "0 500 snapshot $A $B P 64" // the last chunk has 52 sectors of the device
	for name, sizes := range map[string][2]int64{"shorter": {512, 500}, "longer": {500, 512}} {
		t.Run(name, func(t *testing.T) {
			dir := snapshotDir(t)
			path := func(name string) string { return filepath.Join(dir, name) }
			content := fileOf(t, dir, "A")
			err := errors.Join(os.Truncate(path("A"), sizes[0]*512), os.WriteFile(path("C"), content[:sizes[1]*512], 0o600))
			if err != nil {
				t.Fatal(err)
			}
			serveAs(t, dir, text, Options{}, reload(t, dir, "0 500 snapshot $C $B P 64"), func(b *bed) {
				data := bytes.Repeat([]byte{0xaa}, 4096)
				b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: 456, Sectors: 8, Data: data})
				copy(content[456*512:], data)
				if !bytes.Equal(b.whole(), content[:sectors*512]) {
					t.Error("the device has other bytes")
				}
				const chunk = 64 * 512
				last := fileOf(t, dir, "B")[2*chunk:][:min(chunk, sizes[1]*512-7*chunk)]
				if !bytes.Equal(last, content[7*chunk:][:len(last)]) {
					t.Error("the store has other bytes in the last chunk")
				}
			})
		})
	}
}

// A store can have chunks that a shorter base does not have. A merge leaves them out.
func TestMergeAfterReloadWithShorterBase(t *testing.T) {
	const sectors = 440 // within the seventh chunk
	dir := snapshotDir(t)
	content := fileOf(t, dir, "A")[:sectors*512]
	write := func(b *bed, at uint64) {
		data := bytes.Repeat([]byte{0xaa}, 4096)
		b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: at, Sectors: 8, Data: data})
		if at < sectors {
			copy(content[at*512:], data)
		}
	}
	serve(t, dir, "0 512 snapshot $A $B P 64", Options{}, func(b *bed) {
		write(b, 8)
		write(b, 500) // behind the end of the next device
	})
	path := filepath.Join(dir, "C")
	if err := os.WriteFile(path, fileOf(t, dir, "A")[:sectors*512], 0o600); err != nil {
		t.Fatal(err)
	}
	serveAs(t, dir, "0 440 snapshot $A $B P 64", Options{}, reload(t, dir, "0 440 snapshot $C $B P 64"), func(b *bed) {
		write(b, 432)
		b.merge(&gate{})
	})
	if got := fileOf(t, dir, "C"); !bytes.Equal(got, content) {
		t.Errorf("the base has %d bytes, or other ones than the device", len(got))
	}
}
