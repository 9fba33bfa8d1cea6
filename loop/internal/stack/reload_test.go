package stack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// tryReload gives a stack other tables, before it serves a device.
func tryReload(t *testing.T, s *Stack, dir, text string) error {
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
		return err
	}
	r.Apply()
	return r.Close()
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
			serveAs(t, dir, text, Options{}, func(s *Stack) {
				if err := tryReload(t, s, dir, "0 500 snapshot $C $B P 64"); err != nil {
					t.Fatal(err)
				}
			}, func(b *bed) {
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

// A base without a chunk that the store has is refused: the store could not be opened with it again, and a
// merge would make it longer.
func TestReloadRefusesBaseWithoutChunks(t *testing.T) {
	dir := snapshotDir(t)
	serve(t, dir, "0 512 snapshot $A $B P 64", Options{}, func(b *bed) {
		b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: 500, Sectors: 8, Data: make([]byte, 4096)}) // behind the end of the next device
	})
	for sectors, want := range map[int]error{440: snapshot.ErrOldRange, 449: nil} { // the chunk begins at sector 448
		if err := os.WriteFile(filepath.Join(dir, "C"), fileOf(t, dir, "A")[:sectors*512], 0o600); err != nil {
			t.Fatal(err)
		}
		serveAs(t, dir, "0 440 snapshot $A $B P 64", Options{}, func(s *Stack) {
			if err := tryReload(t, s, dir, "0 440 snapshot $C $B P 64"); !errors.Is(err, want) {
				t.Errorf("a base of %d sectors: %v, want %v", sectors, err, want)
			}
		}, func(b *bed) { b.whole() })
	}
}
