package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if ublktest.Promised(ublktest.Own) {
		if err := makeRoot(); err != nil {
			fmt.Fprintf(os.Stderr, "make a root directory: %v\n", err)
			os.Exit(1)
		}
	}
	if skip := flag.Lookup("test.skip").Value; testing.Short() {
		// This test takes minutes in emulation, and tests overlayfs.
		_ = skip.Set(strings.TrimPrefix(skip.String()+"|/128LayersMount", "|"))
	}
	os.Exit(m.Run())
}

// makeRoot makes the root directory a bind mount of the initramfs, because pivot_root(2)
// does not work on the initramfs itself.
func makeRoot() error {
	if err := unix.Mount("/", "/mnt", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Chdir("/mnt"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, "") // systemd also makes the root shared
}
