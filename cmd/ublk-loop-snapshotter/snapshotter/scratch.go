package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// scratch is the empty file system that snapshots without a parent begin with.
type scratch struct {
	dir  *directory
	size int64
	mu   sync.Mutex // held while it is made
}

// file returns the name of its file, which it makes at the first call.
func (s *scratch) file(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := fmt.Sprintf("scratch-%d", s.size)
	_, err := s.dir.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		err = s.make(ctx, name)
	}
	if err != nil {
		return "", fmt.Errorf("make an empty file system: %w", err)
	}
	return name, nil
}

func (s *scratch) make(ctx context.Context, name string) error {
	f, err := s.dir.unfinished(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(s.size); err != nil {
		return err
	}
	if err = call(ctx, "mke2fs", append(s.flags(), f.Name())...); err == nil {
		// No layer has it.
		err = call(ctx, "debugfs", "-w", "-R", "rmdir lost+found", f.Name())
	}
	if err != nil {
		return err
	}
	return s.dir.finish(f, name)
}

// smallJournal is the size of journals, in MiB: what was in them is copied to
// children, too. mke2fs makes them smaller by itself for file systems below
// smallJournalFrom bytes.
const (
	smallJournal     = "16"
	smallJournalFrom = 256 << 20
)

// flags are those of mke2fs. A new file is zero already, so that nothing need be
// made so: not by mke2fs, which writes the journal, nor by the kernel later, to
// each of the copies. Nothing is reserved for root, and nothing for growth.
func (s *scratch) flags() []string {
	flags := []string{"-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^resize_inode", "-E", "lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0"}
	if s.size >= smallJournalFrom {
		flags = append(flags, "-J", "size="+smallJournal)
	}
	return flags
}

// call runs a program of e2fsprogs.
func call(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}
