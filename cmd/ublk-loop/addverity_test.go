package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop"
)

// formatted makes an image with its tree behind it, and the tree once more in a file.
func formatted(t *testing.T) (dir string) {
	t.Helper()
	verityImage(t)
	b := newBench()
	for _, where := range [][]string{{"--hash-file=hash", "--root-hash-file=root"}, nil} {
		if exit := b.run(append(append([]string{"verity", "format", "image"}, where...), small...)); exit != 0 {
			t.Fatal(b.errOut.String())
		}
	}
	dir, err := filepath.Abs(".")
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The job has the table that the superblock describes, read-only.
func TestAddRootHash(t *testing.T) {
	dir := formatted(t)
	if err := os.Link("image", "with space"); err != nil {
		t.Fatal(err)
	}
	appended := " 512 512 300 301 sha256 " + smallRoot + " 010203\n"
	for _, tt := range []struct {
		args  []string
		table string // with $ for the directory
		files []string
	}{
		{[]string{"image", "--root-hash", smallRoot}, "0 300 verity 1 $/image $/image" + appended, []string{"image"}},
		{[]string{"image", "--root-hash=root", "--hash-offset=150K"}, "0 300 verity 1 $/image $/image" + appended, []string{"image"}},
		{[]string{"image", "--root-hash=root", "--hash-file=image", "--hash-offset=150K"}, "0 300 verity 1 $/image $/image" + appended, []string{"image"}},
		{[]string{"with space", "--root-hash=root"}, "0 300 verity 1 image image" + appended, []string{"with space"}},
		{
			[]string{"image", "--root-hash=root", "--hash-file=hash"},
			"0 300 verity 1 $/image $/hash 512 512 300 1 sha256 " + smallRoot + " 010203\n",
			[]string{"image", "hash"},
		},
	} {
		b := newBench()
		b.check(t, append([]string{"add", "-n3"}, tt.args...), 0, "\n", "")
		if want := strings.ReplaceAll(tt.table, "$", dir); b.job.Config.Table != want {
			t.Errorf("%v: table %q", tt.args, b.job.Config.Table)
		}
		var files []string
		for _, f := range b.job.Files {
			files = append(files, strings.TrimPrefix(f.Name(), dir+"/"))
		}
		if !b.job.Config.ReadOnly || fmt.Sprint(files) != fmt.Sprint(tt.files) || b.job.Name != filepath.Join(dir, tt.args[0]) {
			t.Errorf("%v: job %+v with %v", tt.args, b.job, files)
		}
	}
}

// With --cow the device is a writable snapshot over the verified image. Its size is that of the
// data.
func TestAddRootHashCow(t *testing.T) {
	dir := formatted(t)
	if err := os.Link("image", "a,b"); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{"image", "a,b"} {
		for _, readOnly := range []bool{false, true} {
			b := newBench()
			store := strings.ReplaceAll(image, ",", "") + ".store"
			args := []string{"add", image, "--root-hash=root", "--cow", store + ",chunk=4K", fmt.Sprint("--read-only=", readOnly)}
			b.check(t, args, 0, "\n", "")
			path := dir + "/" + strings.ReplaceAll(image, ",", `\,`)
			want := fmt.Sprintf("base,,,ro,0 300 verity 1 %s %s 512 512 300 301 sha256 %s 010203;top,,,rw,0 300 snapshot /dev/mapper/base %s/%s P 8",
				path, path, smallRoot, dir, store)
			if got := b.job.Config; got.Table != want || got.ReadOnly != readOnly {
				t.Errorf("%s: table %q, not %q; read-only %v", image, got.Table, want, got.ReadOnly)
			}
			tables, err := loop.ParseTable([]byte(b.job.Config.Table))
			if err != nil {
				t.Fatal(err)
			}
			for i, device := range tables.Devices() {
				if got := b.job.Files[i].Name(); got != device {
					t.Errorf("file %d is %s, not %s", i, got, device)
				}
			}
			tables.Close()
		}
	}
	b := newBench()
	wrong := []string{"add", "image", "--root-hash", strings.Repeat("0", 64), "--cow=none"}
	if exit := b.run(wrong); exit != 1 || b.job != nil {
		t.Errorf("wrong root hash: exit status %d", exit)
	}
	if _, err := os.Stat("none"); !os.IsNotExist(err) {
		t.Errorf("a store was made for a wrong root hash: %v", err)
	}
}

// A wrong root hash, a wrong number of data blocks and wrong flags start nothing.
func TestAddRootHashRefused(t *testing.T) {
	formatted(t)
	write := func(name string, at int, b byte) {
		content, err := os.ReadFile("image")
		if err != nil {
			t.Fatal(err)
		}
		content[at] = b
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("fewer", 153600+72, 0x2b)      // 299 blocks
	write("damaged", 153600+512, 0xff)   // the highest hash block
	write("other salt", 153600+88, 0xff) // the salt
	write("no superblock", 153600, 'V')  // the signature
	wrong := strings.Repeat("0", 64)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"image", "--root-hash", wrong}, "image: hash block 0 (level 2) at byte 154112 does not match the root hash"},
		{[]string{"fewer", "--root-hash=root", "--hash-offset=150K"}, "fewer: the tree is of more than 299 data blocks: not the image of the root hash"},
		{[]string{"damaged", "--root-hash=root"}, "damaged: hash block 0 (level 2) at byte 154112 does not match the root hash"},
		{[]string{"other salt", "--root-hash=root"}, "other salt: hash block 0 (level 2) at byte 154112 does not match the root hash"},
		{[]string{"no superblock", "--root-hash=root"}, "no superblock: behind its data: no verity superblock"},
		{[]string{"image", "--root-hash", smallRoot[:40]}, "root hash of 20 bytes"},
		{[]string{"image", "--root-hash=nothing"}, "root hash: not 40, 64 or 128 hexadecimal digits"},
		{[]string{"image", "--root-hash=root", "--hash-file=/nothing"}, "open /nothing: no such file or directory"},
	} {
		b := newBench()
		if exit := b.run(append([]string{"add"}, tt.args...)); exit != 1 || !strings.Contains(b.errOut.String(), tt.want) {
			t.Errorf("%v: exit status %d, %s", tt.args, exit, b.errOut.String())
		}
		if b.job != nil {
			t.Errorf("%v: a server was started", tt.args)
		}
	}
	for _, args := range [][]string{
		{"image", "--hash-file=hash"},
		{"image", "--hash-offset=0"},
		{"image", "--root-hash=root", "--offset=512"},
		{"image", "--root-hash=root", "--transfer=xor"},
		{"--root-hash=root", "--table=x"},
	} {
		b := newBench()
		if exit := b.run(append([]string{"add"}, args...)); exit != 2 || b.job != nil {
			t.Errorf("%v: exit status %d, %s", args, exit, b.errOut.String())
		}
	}
}
