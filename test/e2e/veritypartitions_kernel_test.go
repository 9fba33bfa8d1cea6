package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// rootTypes are the types of partitions for the root file system, its tree, and the signature.
var rootTypes = map[string][3]string{
	"amd64": {"4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "41092b05-9fc8-4523-994f-2def0408b176"},
	"arm64": {"b921b045-1df0-41c3-af44-4c6f280d3fae", "df3300ce-d69f-4c92-978c-9bfb0f38d820", "6db69de6-29f4-4758-a7a5-962190f00ce3"},
}

// Where the partitions begin, in MiB. The data has 2 MiB, and the others 1 MiB each.
const (
	rootAt      = 1
	treeAt      = 3
	signatureAt = 4
)

// partitionedImage makes an image of partitions with the tools that others use: the tree of
// veritysetup, and the table of sfdisk.
func (b *bed) partitionedImage() *verityImage {
	b.Helper()
	m := &verityImage{data: randomBytes(2 << 20)}
	dir := b.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	b.writeFile(in("data"), m.data)
	m.root = b.veritysetup(in("data"), in("tree"))

	m.path = in("disk.raw")
	b.writeFile(m.path, make([]byte, 6<<20))
	uuid := func(s string) string {
		return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
	}
	types := rootTypes[runtime.GOARCH]
	sfdisk := exec.Command("sfdisk", "-q", "--no-reread", "--no-tell-kernel", m.path)
	sfdisk.Stdin = strings.NewReader(fmt.Sprintf("label: gpt\nstart=%dMiB, size=2MiB, type=%s, uuid=%s\nstart=%dMiB, size=1MiB, type=%s, uuid=%s\nstart=%dMiB, size=1MiB, type=%s\n",
		rootAt, types[0], uuid(m.root[:32]), treeAt, types[1], uuid(m.root[32:]), signatureAt, types[2]))
	if out, err := sfdisk.CombinedOutput(); err != nil {
		b.Fatalf("sfdisk: %v: %s", err, out)
	}
	signature := fmt.Sprintf(`{"rootHash":%q,"signature":%q}`, m.root, base64.StdEncoding.EncodeToString(b.sign(m.root)))
	f := b.open(m.path, os.O_RDWR)
	for at, content := range map[int64]string{rootAt: string(m.data), treeAt: b.readFile(in("tree")), signatureAt: signature} {
		if _, err := f.WriteAt([]byte(content), at<<20); err != nil {
			b.Fatal(err)
		}
	}
	return m
}

// writeFile makes a file.
func (b *bed) writeFile(path string, content []byte) {
	b.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		b.Fatal(err)
	}
}

// sign signs a text. Until the end of the test, the signer is one that the host trusts.
func (b *bed) sign(text string) []byte {
	b.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signer"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	b.trust(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	signed, err := pkcs7.NewSignedData([]byte(text))
	if err == nil {
		err = signed.AddSigner(certificate, key, pkcs7.SignerInfoConfig{})
	}
	if err != nil {
		b.Fatal(err)
	}
	signed.Detach()
	signature, err := signed.Finish()
	if err != nil {
		b.Fatal(err)
	}
	return signature
}

// trust makes a certificate one of the host's until the end of the test, in a directory that does
// not outlive a boot.
func (b *bed) trust(certificate []byte) {
	b.Helper()
	const dir = "/run/verity.d"
	made := os.Mkdir(dir, 0o755)
	if made != nil && !errors.Is(made, os.ErrExist) {
		b.Fatal(made)
	}
	path := filepath.Join(dir, "ublk-loop-test.crt")
	b.writeFile(path, certificate)
	b.Cleanup(func() {
		err := os.Remove(path)
		if made == nil {
			err = errors.Join(err, os.Remove(dir))
		}
		if err != nil {
			b.Error(err)
		}
	})
}

// diskOf makes a file a read-only disk of the kernel's loop driver until the end of the test.
func (b *bed) diskOf(path string) string {
	b.Helper()
	b.tool("modprobe", "loop")
	disk := strings.TrimSpace(b.tool("losetup", "--find", "--show", "--read-only", path))
	b.Cleanup(func() { b.tool("losetup", "--detach", disk) })
	return disk
}

// An image of partitions, and a disk with such an image, are served by the root hash and the
// signature in them. Damage of data and tree is EIO, and damage of the signature attaches nothing.
func TestKernelAddRootHashPartitions(t *testing.T) {
	b := kernelBed(t)
	m := b.partitionedImage()
	auto := []string{"--root-hash=auto", "--root-hash-signature=auto"}
	device := b.add(append(auto, "--on-crash=reissue", m.path)...)
	if device.Size != 2<<20 || !device.ReadOnly || device.Verity != "V" {
		t.Errorf("device %+v", device)
	}
	b.holds(device.Device, m.data)
	b.killServer(device)
	b.recover(device)
	b.holds(device.Device, m.data)
	m.flip(t, rootAt<<20+7*4096)
	for block, want := range map[int64]error{6: nil, 7: unix.EIO, 8: nil} {
		if err := blockError(t, device.Device, block); !errors.Is(err, want) {
			t.Errorf("block %d: %v, want %v", block, err, want)
		}
	}
	m.flip(t, rootAt<<20+7*4096)
	b.del(device.Device)

	device = b.add(append(auto, b.diskOf(m.path))...)
	b.holds(device.Device, m.data)
	b.del(device.Device)

	store := filepath.Join(t.TempDir(), "store")
	for _, want := range []byte{m.data[5*4096], 0xab} {
		device = b.add(append(auto, "--cow", store, m.path)...)
		b.hasBlock(device, 5, want)
		b.hasBlock(device, 6, m.data[6*4096])
		b.writeBlock(device, 5, 0xab)
		b.del(device.Device)
	}

	m.flip(t, treeAt<<20+4096+1) // the highest hash block
	b.run(append([]string{"add", m.path}, auto...)...).fails(t, 1, "does not match the root hash")
	m.flip(t, treeAt<<20+4096+1)
	m.flip(t, signatureAt<<20+14) // a digit of the root hash
	b.run(append([]string{"add", m.path}, auto...)...).fails(t, 1)
	m.flip(t, signatureAt<<20+14)
	at := b.inSignature(m)
	m.flip(t, at)
	b.run(append([]string{"add", m.path}, auto...)...).fails(t, 1, "signature of the root hash")
	b.del(b.add("--root-hash=auto", m.path).Device)
	m.flip(t, at)
	m.flip(t, 512+16)
	b.run(append([]string{"add", m.path}, auto...)...).fails(t, 1, "wrong checksum of the header")
	m.flip(t, 512+16)
	b.del(b.add(append(auto, m.path)...).Device)
}

// inSignature returns the place of a letter at the end of the signature that flip makes another
// letter.
func (b *bed) inSignature(m *verityImage) int64 {
	b.Helper()
	text := b.readFile(m.path)[signatureAt<<20:]
	isLetter := func(c byte) bool { return 'a' <= c && c <= 'z' }
	for at := strings.IndexByte(text, '}') - 20; at > 0; at-- {
		if isLetter(text[at]) && isLetter(text[at]^4) {
			return signatureAt<<20 + int64(at)
		}
	}
	b.Fatal("the signature has no letter")
	return 0
}

// The kernel takes the tables of such an image as they are printed, over a disk.
func TestKernelPartitionsForDmsetup(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	m := b.partitionedImage()
	device := b.add("--root-hash=auto", b.diskOf(m.path))
	tables := strings.TrimSpace(b.ok("list", "--dm-table", device.Device))
	b.del(device.Device)
	dmsetup := func(args ...string) {
		t.Helper()
		cmd := exec.Command("dmsetup", args...)
		cmd.Env = append(os.Environ(), "DM_DISABLE_UDEV=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("dmsetup %q: %v: %s", args, err, out)
		}
	}
	b.tool("modprobe", "dm_verity")
	dmsetup("create", "--concise", tables)
	defer dmsetup("remove", "--retry", "data")
	defer dmsetup("remove", "--retry", "hash")
	defer dmsetup("remove", "--retry", "verified")
	b.holds("/dev/mapper/verified", m.data)
}
