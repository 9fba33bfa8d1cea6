package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/ublk-loop/ublk-loop/internal/oci"
)

// A container starts from an image whose blocks are checked, and reads no wrong block. The
// settings demand verity for some directories, and a signature for others.
func TestKernelOCIVerity(t *testing.T) {
	t.Run("wrapper", func(t *testing.T) {
		w := kernelBed(t).wrap("crun")
		w.demand("checked", "signed")
		w.checksBlocks(func(string) {})
	})
	t.Run("hooks", func(t *testing.T) {
		w := kernelBed(t).wrap("crun")
		w.demand("checked", "signed")
		byHooks(func(w *wrapped) { w.checksBlocks(w.precreate) })(w)
	})
}

// The settings demand verity and signatures, and let only files of the directories of images be
// named. What lies beside an image is read without following links.
func TestKernelOCIVerityPolicy(t *testing.T) {
	b := kernelBed(t)
	w := b.wrap("crun")
	w.demand("checked", "signed")
	checked, root := w.checkedImage("checked", rootTree(w, "of the image\n"))
	refuses := func(wanted asked, texts ...string) {
		t.Helper()
		w.refuses(w.bundle(wanted, "true"), texts...)
	}
	refuses(asked{"image": checked}, checked, "verity_images", "not without verity.roothash")
	refuses(asked{"image": checked, "options": "rw"}, checked, "verity_images")
	refuses(asked{"image": checked, "verity.roothash": strings.Repeat("0", 64)}, "verity", "root hash")
	refuses(asked{"image": checked, "verity.roothash": "auto"}, "verity", "no root hash beside the image")
	refuses(asked{"image": checked, "verity.roothash": root, "options": "rw"}, "cannot be written to without")
	outside := filepath.Join(t.TempDir(), "tree")
	w.tool("cp", checked, outside)
	refuses(asked{"image": checked, "verity.roothash": root, "verity.hashfile": outside}, outside, "not below a directory")
	refuses(asked{"image": checked, "verity.roothash": root, "verity.roothashsig": outside}, outside, "not below a directory")
	w.write(outside, root, 0o644)
	beside := strings.TrimSuffix(checked, ".raw") + ".roothash"
	if err := os.Symlink(outside, beside); err != nil {
		t.Fatal(err)
	}
	refuses(asked{"image": checked, "verity.roothash": "auto"}, "too many levels of symbolic links")
	if err := os.Remove(beside); err != nil {
		t.Fatal(err)
	}
	w.write(beside, root+"\n", 0o644)
	if out := w.runs("auto", w.bundle(asked{"image": checked, "verity.roothash": "auto"}, "cat", "/content")); out != "of the image\n" {
		t.Errorf("the container prints %q", out)
	}
	w.nothingLeft()
	if err := os.Remove(beside); err != nil {
		t.Fatal(err)
	}
	w.findsTree(checked, root)
	w.checksSignature()
}

// findsTree runs containers of an image whose root hash is in the file of containerd, and whose tree
// is at an offset and in another file.
func (w *wrapped) findsTree(image, root string) {
	w.Helper()
	sidecar := image + ".dmverity"
	w.write(sidecar, fmt.Sprintf(`{"roothash":%q,"hashoffset":%d}`, root, 16<<20), 0o644)
	tree := filepath.Join(w.images, "tree")
	w.tool("dd", "if="+image, "of="+tree, "bs=1M", "skip=16")
	for name, wanted := range map[string]asked{
		"sidecar": {"verity.roothash": "auto"},
		"offset":  {"verity.roothash": root, "verity.hashoffset": fmt.Sprint(16 << 20)},
		"file":    {"verity.roothash": root, "verity.hashfile": tree},
	} {
		wanted["image"] = image
		if out := w.runs(name, w.bundle(wanted, "cat", "/content")); out != "of the image\n" {
			w.Errorf("%s: the container prints %q", name, out)
		}
		w.nothingLeft()
	}
	w.refuses(w.bundle(asked{"image": image, "verity.roothash": root, "verity.hashoffset": "0"}, "true"), "verity")
	w.write(sidecar, fmt.Sprintf(`{"roothash":%q,"hashoffset":512}`, root), 0o644)
	w.refuses(w.bundle(asked{"image": image, "verity.roothash": "auto"}, "true"), "verity")
	if err := os.Remove(sidecar); err != nil {
		w.Fatal(err)
	}
}

// demand makes directories of images below that of all images, and lets the settings demand
// verity in one and a signature in the other.
func (w *wrapped) demand(checked, signed string) {
	w.Helper()
	for _, dir := range []string{checked, signed} {
		if err := os.Mkdir(filepath.Join(w.images, dir), 0o755); err != nil {
			w.Fatal(err)
		}
	}
	text := fmt.Sprintf("verity_images = [%q]\nsigned_images = [%q]\n", filepath.Join(w.images, checked), filepath.Join(w.images, signed))
	w.write(oci.SettingsPath, text+w.readFile(oci.SettingsPath), 0o644)
}

// checkedImage makes an image of ext4 with its tree behind it, and returns its root hash.
func (w *wrapped) checkedImage(dir, tree string) (image, root string) {
	w.Helper()
	image = filepath.Join(w.images, dir, "image.raw")
	w.tool("truncate", "-s", "16M", image)
	w.tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^resize_inode", "-d", tree, image)
	return image, w.formatVerity(image)
}

// formatVerity appends a tree to an image, and returns its root hash.
func (w *wrapped) formatVerity(image string) (root string) {
	w.Helper()
	file := filepath.Join(w.TempDir(), "roothash")
	w.run("verity", "format", image, "--root-hash-file", file).succeeds(w)
	return strings.TrimSpace(w.readFile(file))
}

// checksBlocks runs containers of an image whose blocks are checked, before and after a block
// has become wrong.
func (w *wrapped) checksBlocks(prepare func(bundle string)) {
	w.Helper()
	content := strings.Repeat("of the image\n", 1000)
	image, root := w.checkedImage("checked", rootTree(w, content))
	runs := func(id string) result {
		bundle := w.bundle(asked{"image": image, "verity.roothash": root}, "cat", "/content")
		prepare(bundle)
		return w.calls("run", "--bundle", bundle, id)
	}
	if r := runs("good"); r.status != 0 || r.out != content {
		w.Errorf("status %d, output of %d bytes, errors %q", r.status, len(r.out), r.err)
	}
	w.nothingLeft()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	at := strings.Index(w.readFile(image), content[:4096])
	if at < 0 {
		w.Fatal("the image lacks its content")
	}
	if _, err := f.WriteAt([]byte("O"), int64(at)+4096); err != nil {
		w.Fatal(err)
	}
	if r := runs("wrong"); r.status == 0 || len(r.out) > 4096 || !strings.Contains(r.err, "Input/output error") {
		w.Errorf("with a wrong block: status %d, output of %d bytes, errors %q", r.status, len(r.out), r.err)
	}
	w.nothingLeft()
}

// checksSignature runs containers of an image in a directory that demands a signature.
func (w *wrapped) checksSignature() {
	w.Helper()
	image, root := w.checkedImage("signed", rootTree(w, "signed for\n"))
	signature := strings.TrimSuffix(image, ".raw") + ".roothash.p7s"
	asks := func(sig string) asked {
		return asked{"image": image, "verity.roothash": root, "verity.roothashsig": sig}
	}
	w.refuses(w.bundle(asks("none"), "true"), image, "signed_images", "not without verity.roothashsig")
	w.refuses(w.bundle(asks("auto"), "true"), "no signature of the root hash beside the image")
	signer, other := newSigner(w.TB), newSigner(w.TB)
	w.write(signature, string(signer.sign(w.TB, root)), 0o644)
	w.refuses(w.bundle(asks("auto"), "true"), "no certificate in /etc/verity.d")
	w.trust(other)
	w.refuses(w.bundle(asks("auto"), "true"), "signature of the root hash")
	w.trust(signer)
	for _, sig := range []string{"auto", signature} {
		if out := w.runs("signed", w.bundle(asks(sig), "cat", "/content")); out != "signed for\n" {
			w.Errorf("the container prints %q", out)
		}
		w.nothingLeft()
	}
	w.write(signature, string(signer.sign(w.TB, strings.Repeat("0", 64))), 0o644)
	w.refuses(w.bundle(asks("auto"), "true"), "signature of the root hash")
}

// signer signs root hashes.
type signer struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newSigner(t testing.TB) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "signer"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{key, certificate}
}

// sign returns a detached signature of a root hash.
func (s *signer) sign(t testing.TB, root string) []byte {
	t.Helper()
	data, err := pkcs7.NewSignedData([]byte(root))
	if err != nil {
		t.Fatal(err)
	}
	data.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := data.AddSigner(s.certificate, s.key, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
	data.Detach()
	der, err := data.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// trust makes the certificate of a signer the only one of the host.
func (w *wrapped) trust(s *signer) {
	w.Helper()
	const dir = "/etc/verity.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = os.RemoveAll(dir) })
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: s.certificate.Raw}); err != nil {
		w.Fatal(err)
	}
	w.write(filepath.Join(dir, "signer.crt"), text.String(), 0o644)
}
