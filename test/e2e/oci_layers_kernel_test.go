package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Containers write to disks of their own over an image that is encrypted and signed. Their
// stores are encrypted with the key of the image. A wrong block of the image is not copied.
func TestKernelOCISignedCow(t *testing.T) {
	b := kernelBed(t)
	dir := b.TempDir()
	for _, name := range []string{"keys", "stores", "transient"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	store, key, wrong := dir+"/stores/kept", dir+"/keys/key", dir+"/keys/short"
	w := b.wrap("crun", fmt.Sprintf("allowed_stores = [%q]\ntransient_stores = %q\nallowed_key_files = [%q]",
		dir+"/stores", dir+"/transient", dir+"/keys"), "writable_images = []")
	w.demand("checked", "signed")
	w.write(key, strings.Repeat("k", 32)+strings.Repeat("x", 32), 0o600)
	w.write(wrong, "short", 0o600)
	image, root := w.signedImage(key, strings.Repeat("of the image\n", 1000))
	w.run("cow", "create", store, "--origin", image).succeeds(w)
	before := w.readFile(image)
	over := func(cow, script string) string {
		return w.bundle(asked{
			"image": image, "options": "rw", "cow": cow, "encrypt": "file:" + key, "verity.roothash": root, "verity.roothashsig": "auto",
		}, "sh", "-c", script)
	}
	w.sharesImage(over)
	const secret = "written by the container, and read by no one else"
	w.runs("writer", over("file:"+store, "echo "+secret+" >/secret; grep -c image /content"))
	if out := w.runs("reader", over("file:"+store, "cat /secret")); out != secret+"\n" {
		t.Errorf("the next container prints %q", out)
	}
	w.nothingLeft()
	if text := w.readFile(store); strings.Contains(text, secret) || strings.Contains(text, "of the image") {
		t.Error("the store has what the container has written, or what was copied, in clear text")
	}
	if w.readFile(image) != before {
		t.Error("the image has changed")
	}
	bundle := func(change string, value string) string {
		wanted := asked{"image": image, "options": "rw", "cow": "transient", "encrypt": "file:" + key, "verity.roothash": root, "verity.roothashsig": "auto"}
		wanted[change] = value
		return w.bundle(wanted, "true")
	}
	w.refuses(bundle("verity.roothashsig", "none"), "signed_images")
	w.refuses(bundle("encrypt", "none"), "no file system")
	w.refuses(bundle("encrypt", "file:"+wrong), "a key of 5 bytes")
	w.refuses(bundle("cow", "none"), "cannot be written to without")
}

// signedImage makes an encrypted image with its tree behind it and a signature beside it, and
// returns its root hash.
func (w *wrapped) signedImage(key, content string) (image, root string) {
	w.Helper()
	plain := filepath.Join(w.TempDir(), "plain")
	w.tool("truncate", "-s", "16M", plain)
	w.tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^resize_inode", "-d", rootTree(w, content), plain)
	image = filepath.Join(w.images, "signed", "image.raw")
	w.encrypt(plain, image, key)
	root = w.formatVerity(image)
	s := newSigner(w.TB)
	w.trust(s)
	w.write(strings.TrimSuffix(image, ".raw")+".roothash.p7s", string(s.sign(w.TB, root)), 0o644)
	return image, root
}

// What containers write over a plain image is encrypted with a random key of their own, which ends
// with them. The server cannot be upgraded meanwhile.
func TestKernelOCIEphemeral(t *testing.T) {
	b := kernelBed(t, ublktest.OldestAndNewest)
	transient := filepath.Join(b.TempDir(), "transient")
	if err := os.Mkdir(transient, 0o700); err != nil {
		t.Fatal(err)
	}
	w := b.wrap("crun", fmt.Sprintf("transient_stores = %q", transient), "writable_images = []")
	w.demand("checked", "signed")
	image, root := w.checkedImage("checked", rootTree(w, strings.Repeat("of the image\n", 1000)))
	over := func(cow, script string) string {
		return w.bundle(asked{"image": image, "options": "rw", "cow": cow, "encrypt": "ephemeral", "verity.roothash": root}, "sh", "-c", script)
	}
	w.sharesImage(over)
	const secret = "written by the container, and read by no one else"
	r := w.calls("run", "--detach", "--bundle", over("transient:4m", "echo "+secret+" >>/content; dd if=/content of=/copy conv=fsync; >/done; sleep 1000"), "secret")
	if r.status != 0 {
		t.Fatalf("run: %s", r.err)
	}
	waitUntil(w, "the container has written", func() bool { return w.calls("exec", "secret", "cat", "/done").status == 0 })
	if out := w.calls("exec", "secret", "grep", "-c", "no one else", "/content").out; out != "1\n" {
		t.Errorf("the container finds its line %q times", out)
	}
	store := w.openStore(transient)
	if strings.Trim(store, "\x00") == "" || strings.Contains(store, "no one else") || strings.Contains(store, "of the image") {
		t.Error("the store has what the container has written, or what was copied, in clear text, or nothing")
	}
	w.run("upgrade").fails(t, 1, "ublkb")
	_ = w.calls("kill", "secret", "KILL")
	w.nothingLeft()
	w.forget("secret")
	w.ok("upgrade")
	w.refuses(w.bundle(asked{"image": image, "verity.roothash": root, "encrypt": "ephemeral"}, "true"), "cow=transient")
}

// openStore returns the content of the only transient store of the server.
func (w *wrapped) openStore(dir string) string {
	w.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.server.pid()))
	if err != nil {
		w.Fatal(err)
	}
	stores := map[string]string{}
	for _, fd := range fds {
		if name, _ := os.Readlink(fd); strings.HasPrefix(name, dir+"/") {
			stores[name] = w.readFile(fd)
		}
	}
	if len(stores) != 1 {
		w.Fatalf("the server has %d stores open", len(stores))
	}
	for _, content := range stores {
		return content
	}
	return ""
}
