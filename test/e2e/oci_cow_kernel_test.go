package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
)

// Containers with disks of their own over one image do not see each other's changes, which
// end with the container or stay in a store. The image does not change.
func TestKernelOCICow(t *testing.T) {
	b := kernelBed(t)
	stores, transient := filepath.Join(b.TempDir(), "stores"), filepath.Join(b.TempDir(), "transient")
	for _, dir := range []string{stores, transient} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w := b.wrap("crun", fmt.Sprintf("allowed_stores = [%q]\ntransient_stores = %q", stores, transient), `writable_images = []`, `attach_timeout = "10s"`)
	image := w.imageOf("ext4", rootTree(w, "of the image\n"))
	before := w.readFile(image)
	over := func(cow string, script string) string {
		return w.bundle(asked{"image": image, "options": "rw", "cow": cow}, "sh", "-c", script)
	}
	w.sharesImage(over)
	for range 2 {
		if out := w.runs("short", over("transient", "cat /content; echo changed >/content; cat /content")); out != "of the image\nchanged\n" {
			t.Errorf("a container prints %q", out)
		}
		w.nothingLeft()
	}
	small := over("transient:1m", "dd if=/dev/zero of=/large bs=64K count=64 conv=fsync")
	if r := w.calls("run", "--bundle", small, "small"); r.status == 0 {
		t.Errorf("4 MiB go into a store of 1 MiB: %s", r.err)
	}
	w.nothingLeft()
	w.keepsStore(image, stores+"/kept", over)
	w.forksStore(image, stores+"/forked", over)
	if entries, err := os.ReadDir(transient); err != nil || len(entries) > 0 {
		t.Errorf("transient stores are %v, error %v", entries, err)
	}
	w.refuses(w.bundle(asked{"image": image, "options": "rw"}, "true"), "writable_images")
	w.refuses(over("file:"+image, "true"), image, "not below a directory")
	w.refuses(over("file:"+stores+"/none", "true"), "none", "not there")
	if w.readFile(image) != before {
		t.Error("the image has changed")
	}
}

// sharesImage runs two containers of one image at once.
func (w *wrapped) sharesImage(over func(cow, script string) string) {
	w.Helper()
	ids := []string{"first", "second"}
	for _, id := range ids {
		if r := w.calls("run", "--detach", "--bundle", over("transient", "echo "+id+" >/content; sleep 1000"), id); r.status != 0 {
			w.Fatalf("run %s: %s", id, r.err)
		}
	}
	w.devicesAre(2)
	for _, id := range ids {
		var out string
		waitUntil(w, "the container "+id+" has written", func() bool {
			out = w.calls("exec", id, "cat", "/content").out
			return out == id+"\n"
		})
	}
	for _, id := range ids {
		_ = w.calls("kill", id, "KILL")
	}
	w.nothingLeft()
	for _, id := range ids {
		w.forget(id)
	}
}

// keepsStore runs two containers with one store, one after the other.
func (w *wrapped) keepsStore(image, store string, over func(cow, script string) string) {
	w.Helper()
	w.run("cow", "create", store, "--origin", image).succeeds(w)
	w.runs("writer", over("file:"+store, "echo kept >/content"))
	if out := w.runs("reader", over("file:"+store, "cat /content")); out != "kept\n" {
		w.Errorf("the next container prints %q", out)
	}
	w.nothingLeft()
}

// forksStore forks the device of a container that runs. The second device has what the
// container had written.
func (w *wrapped) forksStore(image, store string, over func(cow, script string) string) {
	w.Helper()
	w.run("cow", "create", store, "--origin", image).succeeds(w)
	if r := w.calls("run", "--detach", "--bundle", over("file:"+store, "sleep 1000"), "forked"); r.status != 0 {
		w.Fatalf("run: %s", r.err)
	}
	write := func(text string) {
		if r := w.calls("exec", "forked", "sh", "-c", "echo "+text+" >/content; sync"); r.status != 0 {
			w.Fatalf("exec: %s", r.err)
		}
	}
	write("before")
	w.devicesAre(1)
	var list []client.Device
	w.decode(w.server.curl("-f", "http://x/v1/devices"), &list)
	r := w.run("fork", list[0].Device, store+".after", store+".other")
	r.succeeds(w)
	write("after")
	devices := strings.Fields(r.out)
	w.mounted(devices[1], func(dir string) {
		if text, err := os.ReadFile(filepath.Join(dir, "content")); err != nil || string(text) != "before\n" {
			w.Errorf("the second device has %q, error %v", text, err)
		}
	})
	w.run("del", devices[1]).succeeds(w)
	if out := w.calls("exec", "forked", "cat", "/content").out; out != "after\n" {
		w.Errorf("the container has %q", out)
	}
	_ = w.calls("kill", "forked", "KILL")
	w.nothingLeft()
	w.forget("forked")
	w.refuses(over("file:"+store+".after", "true"), "has changes of the store")
}
