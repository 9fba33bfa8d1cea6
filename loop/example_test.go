package loop_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// This example serves a file as a disk for a while.
func ExampleAttach() {
	path := filepath.Join(os.TempDir(), "loop-example.img")
	image := make([]byte, 1<<20)
	copy(image, "first sector")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.Remove(path) }()
	ctl, err := ublk.OpenControl()
	if err != nil {
		log.Fatal(err)
	}
	defer ctl.Close()
	file, err := loop.OpenPath(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	dev, err := loop.Attach(ctl, file, loop.Config{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	disk, err := os.Open(dev.Path())
	if err != nil {
		log.Fatal(errors.Join(err, dev.Close()))
	}
	sector := make([]byte, 512)
	_, err = disk.Read(sector)
	fmt.Printf("%s, error %v\n", sector[:12], err)
	fmt.Println("end:", errors.Join(disk.Close(), dev.Close()))
}

func TestKernelExample(t *testing.T) {
	ublktest.Kernel(t)
	if got, want := ublktest.Printed(t, ExampleAttach), "first sector, error <nil>\nend: <nil>\n"; got != want {
		t.Errorf("the example prints %q, want %q", got, want)
	}
}
