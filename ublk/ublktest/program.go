package ublktest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Program runs the main function of a program that makes a device and serves it until it
// is interrupted. It calls use with the path of the disk, interrupts the program, and waits
// for its end.
func Program(t testing.TB, main func(), args []string, use func(disk string)) {
	t.Helper()
	const limit = 30 * time.Second
	before := disks(t)
	saved := os.Args
	os.Args = append([]string{"program"}, args...)
	defer func() { os.Args = saved }()
	ended := make(chan struct{})
	go func() { // ends with the program, which is waited for below
		defer close(ended)
		main()
	}()
	var disk string
	Until(t, limit, "the program's disk", func() bool {
		for _, path := range disks(t) {
			if !slices.Contains(before, path) {
				disk = filepath.Join("/dev", filepath.Base(path))
			}
		}
		if disk == "" {
			return false
		}
		f, err := os.Open(disk)
		return err == nil && f.Close() == nil
	})
	use(disk)
	if err := unix.Kill(os.Getpid(), unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	Receive(t, limit, "the program's end", ended)
}

// disks lists the disks of ublk.
func disks(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("/sys/block/ublkb*")
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
