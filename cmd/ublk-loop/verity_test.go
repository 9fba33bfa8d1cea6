package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// verityImage makes an image of 300 blocks of 512 bytes, in the current directory.
func verityImage(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	var b bytes.Buffer
	for i := 1; b.Len() < 300*512; i++ {
		fmt.Fprintln(&b, i)
	}
	if err := os.WriteFile("image", b.Bytes()[:300*512], 0o600); err != nil {
		t.Fatal(err)
	}
}

// small are the flags for small blocks and a fixed result.
var small = []string{
	"--data-block-size=512", "--hash-block-size=512", "--salt=010203", "--uuid=00112233-4455-6677-8899-aabbccddeeff",
}

// smallRoot is the root hash of veritysetup 2.6.1 for the same image and flags.
const smallRoot = "dd1140d97895f390373d517a77d7a5880f33160b91fd75449081fc6621350f1b"

func TestVerityFormat(t *testing.T) {
	verityImage(t)
	b := newBench()
	description := "UUID:            \t00112233-4455-6677-8899-aabbccddeeff\nHash type:       \t1\nData blocks:     \t300\n" +
		"Data block size: \t512\nHash blocks:     \t22\nHash block size: \t512\nHash algorithm:  \tsha256\nSalt:            \t010203\n" +
		"Root hash:      \t" + smallRoot + "\n"
	b.check(t, append([]string{"verity", "format", "image", "--hash-file", "hash", "--root-hash-file=root"}, small...), 0,
		"VERITY header information for hash\n"+description+"Hash device size: \t11776 [bytes]\n", "")
	if root, err := os.ReadFile("root"); err != nil || string(root) != smallRoot {
		t.Errorf("the file has the root hash %q, %v", root, err)
	}
	b.check(t, append([]string{"verity", "format", "image"}, small...), 0, "VERITY header information for image\n"+description, "")
	b.check(t, append([]string{"verity", "format", "image"}, small...), 1, "",
		"ublk-loop: error: image has a tree behind its 300 data blocks of 512 bytes: file exists\n"+
			"hint: --force --data-blocks=300 --hash-offset=153600 replaces the tree\n")
	b.check(t, append([]string{"verity", "format", "image", "--force", "--data-blocks=300", "--hash-offset=153600"}, small...), 0,
		"VERITY header information for image\n"+description, "")
	b.check(t, []string{"verity", "verify", "image", "--root-hash=root"}, 0, "", "")
	b.check(t, []string{"verity", "verify", "image", "--root-hash", smallRoot, "--hash-file=hash"}, 0, "", "")
	b.check(t, []string{"verity", "verify", "image", "--root-hash", smallRoot, "--hash-offset=150K"}, 0, "", "")
}

// By itself the salt is random, and the blocks have 4 KiB.
func TestVerityFormatDefaults(t *testing.T) {
	verityImage(t)
	roots := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		b := newBench()
		if status := b.run([]string{"verity", "format", "image", "--data-blocks=37", "--hash-file", name, "--root-hash-file=root"}); status != 0 {
			t.Fatalf("status %d, %s", status, &b.errOut)
		}
		for _, want := range []string{"Data block size: \t4096\n", "Hash block size: \t4096\n", "Hash algorithm:  \tsha256\n", "Data blocks:     \t37\n"} {
			if !strings.Contains(b.out.String(), want) {
				t.Errorf("no %q in\n%s", want, &b.out)
			}
		}
		root, err := os.ReadFile("root")
		if err != nil {
			t.Fatal(err)
		}
		roots[string(root)] = true
	}
	if len(roots) != 2 {
		t.Errorf("the same root hash twice: %v", roots)
	}
}

// The exit status is 1 for wrong blocks, of which the first are printed.
func TestVerityVerifyFindsDamage(t *testing.T) {
	verityImage(t)
	b := newBench()
	if status := b.run(append([]string{"verity", "format", "image", "--hash-file=hash"}, small...)); status != 0 {
		t.Fatal(&b.errOut)
	}
	image, err := os.ReadFile("image")
	if err != nil {
		t.Fatal(err)
	}
	command := []string{"verity", "verify", "image", "--hash-file=hash", "--root-hash", smallRoot}
	image[7*512+100] ^= 1
	writeImage(t, image)
	b.check(t, command, 1, "", "ublk-loop: error: verify image: data block 7 at byte 3584 does not match the tree\n")
	clear(image)
	writeImage(t, image)
	var want strings.Builder
	for i := range 10 {
		fmt.Fprintf(&want, "ublk-loop: error: verify image: data block %d at byte %d does not match the tree\n", i, i*512)
	}
	want.WriteString("ublk-loop: error: verify image: 300 wrong blocks, of which the first 10 are printed\n")
	b.check(t, command, 1, "", want.String())
	b.check(t, append(command[:4:4], "--root-hash", strings.Repeat("0", 64)), 1, "",
		"ublk-loop: error: verify image: hash block 0 (level 2) at byte 512 does not match the root hash, so data blocks 0 to 299 cannot be checked\n")
	b.check(t, append(command[:4:4], "--root-hash", strings.Repeat("0", 40)), 1, "",
		"ublk-loop: error: verify image: root hash of 20 bytes, sha256 has 32: invalid\n")
	b.check(t, []string{"verity", "verify", "image", "--root-hash", smallRoot}, 1, "",
		"ublk-loop: error: image: behind its data: no verity superblock\n"+
			"hint: give its offset with --hash-offset, or its file with --hash-file\n")
}

func writeImage(t *testing.T, b []byte) {
	t.Helper()
	if err := os.WriteFile("image", b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVerityUsage(t *testing.T) {
	b := newBench()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "verity: format or verify is missing\nhint: see ublk-loop verity --help"},
		{[]string{"dump"}, "verity: unknown command \"dump\"\nhint: see ublk-loop verity --help"},
		{[]string{"format"}, "format: IMAGE is missing\nhint: see ublk-loop verity format --help"},
		{[]string{"format", "a", "b"}, "format: unexpected argument \"b\"\nhint: the file of the tree is --hash-file"},
		{[]string{"verify", "a", "b", "00"}, "verify: unexpected argument \"b\"\nhint: the root hash is --root-hash, and the file of the tree is --hash-file"},
		{[]string{"verify", "a"}, "verify: --root-hash is missing\nhint: see ublk-loop verity verify --help"},
		{[]string{"format", "a", "--hash=md5"}, "--hash \"md5\": not sha256, sha512 or sha1\nhint: see ublk-loop verity format --help"},
		{[]string{"format", "a", "--data-block-size=1000"}, "--data-block-size \"1000\": not a power of 2 from 512 to 512K\nhint: see ublk-loop verity format --help"},
		{[]string{"format", "a", "--hash-block-size=1M"}, "--hash-block-size \"1M\": not a power of 2 from 512 to 512K\nhint: see ublk-loop verity format --help"},
		{[]string{"format", "a", "--data-blocks=0"}, "--data-blocks \"0\": not a number from 1\nhint: see ublk-loop verity format --help"},
		{[]string{"format", "a", "--salt=0"}, "--salt \"0\": not 1 to 256 bytes in hexadecimal digits: invalid\nhint: see ublk-loop verity format --help"},
		{[]string{"format", "a", "--uuid=0"}, "--uuid \"0\": not a UUID: invalid\nhint: see ublk-loop verity format --help"},
		{[]string{"verify", "a", "--hash-offset=-1"}, "--hash-offset \"-1\": negative\nhint: see ublk-loop verity verify --help"},
	} {
		b.check(t, append([]string{"verity"}, tt.args...), 2, "", "ublk-loop: error: "+tt.want+"\n")
	}
}

// format prints what veritysetup prints.
func TestVerityPrintsAsVeritysetup(t *testing.T) {
	if _, err := exec.LookPath("veritysetup"); err != nil {
		ublktest.MachineLacks(t, "veritysetup")
	}
	verityImage(t)
	path := filepath.Join(t.TempDir(), "hash")
	out, err := exec.Command("veritysetup", append([]string{"format", "image", path}, small...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	newBench().check(t, append([]string{"verity", "format", "image", "--hash-file", path}, small...), 0, string(out), "")
}
