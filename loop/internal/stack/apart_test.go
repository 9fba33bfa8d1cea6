package stack

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
)

// Another process makes the same stack of a description that went through JSON. It refuses one with
// too few descriptors, or files.
func TestWork(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := open(t, dir, "0 1024 linear "+path+" 0\n1024 8 zero\n1032 512 linear "+path+" 1024\n", &Options{Eager: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	s.Backings[0].Path = "/caf\xe9" // a name need not be UTF-8
	made, fds, err := s.Work()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	var w Work
	if err := json.Unmarshal(text, &w); err != nil {
		t.Fatal(err)
	}
	_, same, err := w.Target(duplicates(t, fds), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = same.CloseServed() }()
	if same.Size != s.Size || same.ReadOnly != s.ReadOnly || same.eager != s.eager || same.tables.Text() != s.tables.Text() || len(same.Backings) != 1 || same.Backings[0].Path != s.Backings[0].Path {
		t.Errorf("another stack: %+v, want %+v", same, s)
	}
	for i, b := range same.Backings {
		of := s.Backings[i]
		if b.Direct != of.Direct || b.SectorSize != of.SectorSize || b.IsDisk != of.IsDisk || b.ReadOnly != of.ReadOnly || b.Lock == nil {
			t.Errorf("file %d is %+v, want %+v", i, b, of)
		}
	}
	for n := range fds {
		if _, _, err := w.Target(duplicates(t, fds[:n]), 0, nil); !errors.Is(err, unix.EBADMSG) {
			t.Errorf("%d of %d descriptors: %v", n, len(fds), err)
		}
	}
	w.Text = strings.ReplaceAll(w.Text, "1032 512 linear "+path, "1032 512 linear "+path+"2")
	if _, _, err := w.Target(duplicates(t, fds), 0, nil); !errors.Is(err, unix.EBADMSG) {
		t.Errorf("one file for two devices: %v", err)
	}
}

func duplicates(t *testing.T, fds []int) (list []int) {
	t.Helper()
	for _, fd := range fds {
		own, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, own)
	}
	return list
}

// What another process refuses leaves no descriptor open, also none that is missing in the description.
func TestRefusedDescriptors(t *testing.T) {
	s, err := open(t, snapshotDir(t), "0 512 snapshot $A $B P 8", &Options{DirectIO: backing.SwitchOff})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	const text, locked = "0 8 zero\n", true
	target := func(w Work) func(fds []int) error {
		return func(fds []int) error { _, _, err := w.Target(fds, 0, nil); return err }
	}
	grow := func(w GrowthWork) func(fds []int) error {
		return func(fds []int) error { _, err := s.GrowFor(&w, fds); return err }
	}
	reload := func(w ReloadWork) func(fds []int) error {
		return func(fds []int) error { _, err := s.ReloadFor(&w, fds); return err }
	}
	file := WorkBacking{IsLocked: locked}
	for name, refuse := range map[string]func(fds []int) error{
		"tables without a text":         target(Work{}),
		"tables of too few descriptors": target(Work{Text: text, Backings: []WorkBacking{file, file}}),
		"tables of too many":            target(Work{Text: text, Backings: []WorkBacking{{}}, BackingOf: []int{0}}),
		"growth without a text":         grow(GrowthWork{}),
		"growth of too few descriptors": grow(GrowthWork{Text: text, Backing: file}),
		"growth of too many":            grow(GrowthWork{Text: text}),
		"reload without a text":         reload(ReloadWork{}),
		"reload of too few descriptors": reload(ReloadWork{Text: text, Files: []ReloadedFile{{New: &WorkBacking{}}, {New: &file}, {New: &file}}}),
		"reload of a file of another":   reload(ReloadWork{Text: text, Files: []ReloadedFile{{Has: 7}, {New: &file}}}),
		"reload of too many":            reload(ReloadWork{Text: text}),
	} {
		for n := 1; n <= 3; n++ {
			closed, fds := watchedDescriptors(t, n)
			if err := refuse(fds); err == nil {
				t.Errorf("%s: %d descriptors are taken", name, n)
			}
			if err := closed(); err != nil {
				t.Errorf("%s: of %d descriptors one stays open: %v", name, n, err)
			}
		}
	}
}

// watchedDescriptors returns some descriptors, and a function that returns an error if one of them is open.
func watchedDescriptors(t *testing.T, n int) (closed func() error, fds []int) {
	t.Helper()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(pipe[0]) })
	for range n {
		fds = append(fds, pipe[1])
	}
	fds = duplicates(t, fds)
	_ = unix.Close(pipe[1])
	return func() error { // there is an end without another end
		_, err := unix.Read(pipe[0], make([]byte, 1))
		return err
	}, fds
}

// Another process tells the use of files by their numbers. It can name only stores, each of them once, and
// no state that does not exist. Its report does not grow with the paths.
func TestWithPaths(t *testing.T) {
	dir := snapshotDir(t)
	s, err := open(t, dir, "0 512 snapshot $A $B P 8", &Options{DirectIO: backing.SwitchOff})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	own := s.Usages()
	text, err := json.Marshal(own)
	if err != nil || strings.Contains(string(text), dir) {
		t.Errorf("%s: error %v", text, err)
	}
	var reported []StoreUsage
	if err := json.Unmarshal(text, &reported); err != nil {
		t.Fatal(err)
	}
	other, origin, again := reported[0], reported[0], reported[0]
	other.File, origin.File, again.State = 77, 1-reported[0].File, "\n"
	if got := s.WithPaths(append([]StoreUsage{other, origin}, reported[0], again)); !slices.Equal(got, own) {
		t.Errorf("usages %+v, want %+v", got, own)
	}
	if got := s.WithPaths([]StoreUsage{again}); len(got) != 1 || got[0].State != cow.Invalid {
		t.Errorf("an unknown state: %+v", got)
	}
}
