package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An encrypted image becomes the root of a container with a key that the settings allow,
// from a file or from the keyrings.
func TestKernelOCIEncrypted(t *testing.T) {
	b := kernelBed(t)
	keys := filepath.Join(b.TempDir(), "keys")
	if err := os.Mkdir(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	w := b.wrap("crun", fmt.Sprintf("allowed_key_files = [%q]", keys), `allowed_keyring_keys = ["ublk-loop:image"]`)
	key := strings.Repeat("k", 32) + strings.Repeat("x", 32)
	right, wrong, exposed := keys+"/right", keys+"/wrong", keys+"/exposed"
	w.write(right, key, 0o600)
	w.write(wrong, strings.ToUpper(key), 0o600)
	w.write(exposed, key, 0o644)
	image := w.encrypted(right)

	bundle := w.bundle(asked{"image": image, "encrypt": "file:" + right}, "cat", "/content")
	if out := w.runs("file", bundle); out != "of the image\n" {
		t.Errorf("the container prints %q", out)
	}
	written := w.bundle(asked{"image": image, "encrypt": "file:" + right, "options": "rw"}, "sh", "-c", "echo of a container >/content")
	w.runs("writer", written)
	w.nothingLeft()
	id := w.addKey("ublk-loop:image", []byte(key))
	defer func() { _, _ = unix.KeyctlInt(unix.KEYCTL_INVALIDATE, id, 0, 0, 0) }()
	if out := w.runs("keyring", w.bundle(asked{"image": image, "encrypt": "keyring:ublk-loop:image"}, "cat", "/content")); out != "of a container\n" {
		t.Errorf("with a key of the keyrings, the container prints %q", out)
	}
	w.nothingLeft()
	if text, err := os.ReadFile(image); err != nil || bytes.Contains(text, []byte("of a container")) {
		t.Errorf("the image has what the container has written, error %v", err)
	}

	for reference, texts := range map[string][]string{
		"none":                    {"no file system"},
		"file:" + wrong:           {"no file system"},
		"file:" + exposed:         {exposed, "other users have access", "0644"},
		"file:" + image:           {image, "not below a directory"},
		"file:" + keys + "/gone":  {"gone", "not there"},
		"keyring:ublk-loop:other": {"ublk-loop:other", "allowed_keyring_keys"},
		"tape:1":                  {"tape:1", "not one of none, ephemeral, file:PATH"},
	} {
		w.refuses(w.bundle(asked{"image": image, "encrypt": reference}, "true"), texts...)
	}
}

// encrypted makes an encrypted image of ext4.
func (w *wrapped) encrypted(keyFile string) string {
	w.Helper()
	plain := w.imageOf("ext4", rootTree(w, "of the image\n"))
	image := filepath.Join(w.images, "encrypted.img")
	w.encrypt(plain, image, keyFile)
	return image
}

// encrypt makes an encrypted copy of an image.
func (w *wrapped) encrypt(plain, image, keyFile string) {
	w.Helper()
	w.tool("truncate", "--reference="+plain, image)
	s := w.add("--standalone", "--transfer", "aes-xts-plain64", "--key-file", keyFile, image)
	w.tool("dd", "if="+plain, "of="+s.Device, "bs=1M", "oflag=direct")
	w.del(s.Device)
}
