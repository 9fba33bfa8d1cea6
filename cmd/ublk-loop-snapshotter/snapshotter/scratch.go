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

// scratch is the empty file system that snapshots without a parent start from.
type scratch struct {
	dir  *directory
	size int64
	mu   sync.Mutex // held while the file system is made
}

// file returns the name of the file system's file. The first call makes the file.
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
		// No layer has this directory.
		err = call(ctx, "debugfs", "-w", "-R", "rmdir lost+found", f.Name())
	}
	if err != nil {
		return err
	}
	return s.dir.finish(f, name)
}

// smallJournal is the size of a journal, in MiB. A small journal matters, because
// children also get a copy of the journal's data. For file systems below smallJournalFrom
// bytes, mke2fs chooses a smaller journal by itself.
const (
	smallJournal     = "16"
	smallJournalFrom = 256 << 20
)

// flags returns the flags of mke2fs. A new file is already zero. Therefore neither
// mke2fs, which writes the journal, nor later the kernel, in each copy, has to zero
// anything. No space is reserved for root or for growth.
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
