package e2e

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The name of a new device may belong to a file, for example of a program that wrote to a device that
// was gone, or to the node of another disk. add must not print a name that leads there, and leaves nothing.
func TestKernelNodeTaken(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	const node = "/dev/ublkb77"
	file := b.image(1 << 20)
	for what, occupy := range map[string]func() error{
		"another file has the name": func() error { return os.WriteFile(node, []byte("x"), 0o600) },
		"belongs to another device": func() error { return unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(259, 77777))) },
	} {
		if err := occupy(); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"add", "--id=77", file}, {"add", "--id=77", "--partscan", file}} {
			b.run(args...).fails(t, 1, what, "hint: remove the file: rm "+node)
			if list := b.list(); len(list) > 0 {
				t.Fatalf("%v leaves %+v", args, list)
			}
		}
		if err := os.Remove(node); err != nil {
			t.Fatal(err)
		}
	}
	b.del(b.add("--id=77", file).Device)
}
