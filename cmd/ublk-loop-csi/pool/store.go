package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Store holds the records and images of one kind of objects. Its methods are safe for
// concurrent use for different ids.
type Store[T any] struct {
	root  *os.Root
	kind  Kind
	spare *spare
}

const (
	recordSuffix     = ".json"
	imageSuffix      = ".img"
	unfinishedSuffix = ".new"
)

func (s Store[T]) name(id, suffix string) string { return filepath.Join(string(s.kind), id+suffix) }

// check refuses ids that could be the name of another file.
func (s Store[T]) check(id string) error {
	if !IsID(s.kind, id) {
		return fmt.Errorf("%q is not an id of %s: %w", id, s.kind, unix.ENOENT)
	}
	return nil
}

// Read reads a record. It returns an error that wraps os.ErrNotExist if there is none.
func (s Store[T]) Read(id string) (*T, error) {
	if err := s.check(id); err != nil {
		return nil, err
	}
	s.spare.mu.RLock()
	text, err := s.root.ReadFile(s.name(id, recordSuffix))
	s.spare.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	record := new(T)
	if err := json.Unmarshal(text, record); err != nil {
		return nil, fmt.Errorf("read the record of %s: %w", id, err)
	}
	return record, nil
}

// Write writes a record to disk. The record is the old or the new one whenever the machine
// stops. An existing record can be changed also if the file system is full.
func (s Store[T]) Write(id string, record *T) error {
	if err := s.check(id); err != nil {
		return err
	}
	text, err := json.MarshalIndent(record, "", "\t")
	if err != nil {
		return err
	}
	name := s.name(id, recordSuffix)
	err = s.write(name, text)
	if isFull(err) && s.spare.replace(name, text) == nil {
		err = nil
	}
	if err == nil {
		err = syncName(s.root, string(s.kind))
	}
	if err != nil {
		return fmt.Errorf("write the record of %s: %w", id, err)
	}
	return nil
}

// write replaces a file by a new one. It leaves nothing if there is no space.
func (s Store[T]) write(name string, text []byte) error {
	f, err := s.root.OpenFile(name+unfinishedSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = s.root.Rename(name+unfinishedSuffix, name)
	}
	if err != nil {
		err = errors.Join(err, s.root.Remove(name+unfinishedSuffix))
	}
	return err
}

// Remove removes the image and then the record.
func (s Store[T]) Remove(id string) error {
	if err := s.check(id); err != nil {
		return err
	}
	for _, suffix := range []string{imageSuffix, recordSuffix} {
		if err := s.root.Remove(s.name(id, suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := syncName(s.root, string(s.kind)); err != nil {
			return err
		}
	}
	return nil
}

// RemoveImage removes an image and leaves the record.
func (s Store[T]) RemoveImage(id string) error {
	if err := s.check(id); err != nil {
		return err
	}
	err := s.root.Remove(s.name(id, imageSuffix))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncName(s.root, string(s.kind))
}

// IDs returns the ids of all records, sorted.
func (s Store[T]) IDs() ([]string, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		if id, ok := strings.CutSuffix(name, recordSuffix); ok && IsID(s.kind, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// All returns all records, sorted by id. Records that go meanwhile are left out. damaged has an
// error for each record that cannot be read.
func (s Store[T]) All() (records []*T, damaged []error, err error) {
	ids, err := s.IDs()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		record, err := s.Read(id)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			damaged = append(damaged, err)
		default:
			records = append(records, record)
		}
	}
	return records, damaged, nil
}

// RemoveUnfinished removes records that a crash has left unfinished.
func (s Store[T]) RemoveUnfinished() error {
	names, err := s.names()
	for _, name := range names {
		if strings.HasSuffix(name, unfinishedSuffix) {
			err = errors.Join(err, s.root.Remove(filepath.Join(string(s.kind), name)))
		}
	}
	return err
}

func (s Store[T]) names() ([]string, error) {
	f, err := s.root.Open(string(s.kind))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return f.Readdirnames(-1)
}
