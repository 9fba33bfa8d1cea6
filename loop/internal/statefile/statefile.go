// Package statefile keeps the purpose of each device on disk: a file N.json in
// /run/ublk-loop. The driver knows which devices exist; a record only says what they are
// for. The package has its own types, so that the format does not change by accident:
// servers of other versions read it.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ublk-loop/ublk-loop/internal/owndir"
)

// Dir is the directory of the records and of their locks.
const Dir = "/run/ublk-loop"

// LockDir has the locks of files and disks (package filelock).
const LockDir = Dir + "/locks"

// These are the suffixes of a device's files behind its number.
const (
	recordSuffix = ".json"
	lockSuffix   = ".lock"
	crashSuffix  = ".crash"
)

// version is the format of a record. A file of another version is ignored.
const version = 1

// Record is the content of a file.
type Record struct {
	Version   int    `json:"version"`
	StartTime uint64 `json:"pid_start_time"` // of Status.PID, in clock ticks since boot
	// FileBirth is the creation time of the file (identity.File).
	FileBirth int64 `json:"file_birth,omitempty"`
	// FileDisk identifies the disk, or the disk of the file's file system.
	FileDisk Disk `json:"file_disk,omitzero"`
	// Files are the files and disks of a device of tables, in the order of the text.
	Files []File `json:"files,omitempty"`
	// KeyCheck distinguishes the key of the transfer from other keys.
	KeyCheck string `json:"key_check,omitempty"`
	// Recovering says that Status.PID has begun to take over the device, and has not
	// finished.
	Recovering bool    `json:"recovering,omitempty"`
	Config     Config  `json:"config"`
	Status     *Status `json:"status"`
}

// Path returns the path of a device's record.
func Path(id uint32) string {
	return filepath.Join(Dir, strconv.FormatUint(uint64(id), 10)+recordSuffix)
}

// SocketPath returns the path of the socket at which the process of a device of its own listens,
// if the device has a store.
func SocketPath(id uint32) string {
	return filepath.Join(Dir, strconv.FormatUint(uint64(id), 10)+".sock")
}

// CrashPath returns the path of the file in which a server without a log says why its program has
// crashed.
func CrashPath(id uint32) string {
	return filepath.Join(Dir, strconv.FormatUint(uint64(id), 10)+crashSuffix)
}

// Write replaces the record atomically: a reader sees the old file, the new file or none.
func (r *Record) Write() error {
	if err := owndir.Make(Dir); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := r.writeUdev(); err != nil {
		return err
	}
	r.Version = version
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	id := r.Status.ID
	if err := replace(Path(id), append(data, '\n')); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// newSuffix is that of the file in which the holder of the Lock writes the new content of another.
const newSuffix = ".new"

// replace writes a file atomically. After an error the file is unchanged, and no other is left.
func replace(path string, data []byte) error {
	err := os.WriteFile(path+newSuffix, data, 0o600)
	if err == nil {
		err = os.Rename(path+newSuffix, path)
	}
	if err != nil {
		_ = os.Remove(path + newSuffix)
	}
	return err
}

// Read returns the record of a device, or nil if there is none.
func Read(id uint32) (*Record, error) {
	data, err := os.ReadFile(Path(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return parse(data, id), nil
}

// parse returns nil for a file that is not a record of device id.
func parse(data []byte, id uint32) *Record {
	var r Record
	if json.Unmarshal(data, &r) != nil || r.Version != version || r.Status == nil || r.Status.ID != id {
		return nil
	}
	return &r
}

// Remove removes the record of a device, its properties for udev, the socket, the report of a crash,
// and unfinished writes.
func Remove(id uint32) error {
	if err := removeUdev(id); err != nil {
		return err
	}
	for _, path := range []string{Path(id) + newSuffix, Path(id), SocketPath(id), CrashPath(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove state: %w", err)
		}
	}
	return nil
}
