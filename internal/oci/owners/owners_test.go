package owners

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// The walk goes where the kernel goes.
func TestOpen(t *testing.T) {
	top := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(top+"/a/b", 0o755), os.Symlink(top+"/a", top+"/absolute"), os.Symlink("b/.", top+"/a/c"), os.Symlink("loop", top+"/loop"),
		os.WriteFile(top+"/file", nil, 0o600), os.Symlink("/", top+"/root"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(top + "/a")
	for _, path := range []string{
		"/", ".", "..", "b", "./b/", "b/..", "../absolute/c", top + "/absolute/c/../b", top + "//absolute/", top + "/root" + top,
		top + "/loop", top + "/file", top + "/nothing", "", "b/../../file",
	} {
		want, wantErr := os.Open(path + "/.")
		if path == "" {
			want, wantErr = os.Open(".")
		}
		got, _, err := Open(path)
		if err != nil || wantErr != nil {
			if !errors.Is(err, errors.Unwrap(wantErr)) {
				t.Errorf("%q: error %v, want %v", path, err, wantErr)
			}
			continue
		}
		is, isErr := got.Stat()
		should, shouldErr := want.Stat()
		if isErr != nil || shouldErr != nil || !os.SameFile(is, should) {
			t.Errorf("%q: another directory, %v, %v", path, isErr, shouldErr)
		}
		got.Close()
		want.Close()
	}
}

// Who may write to a directory can exchange what is in it, unless the directory is sticky.
func TestAdd(t *testing.T) {
	const dir, file, link = unix.S_IFDIR, unix.S_IFREG, unix.S_IFLNK
	for _, tt := range []struct {
		uid, gid, mode uint32
		want           []uint32
	}{
		{0, 0, dir | 0o755, []uint32{0}},
		{0, 0, dir | 0o775, []uint32{0}},
		{0, 50, dir | 0o755, []uint32{0}},
		{0, 50, dir | 0o2775, []uint32{Unnamed}},
		{0, 50, dir | 0o3775, []uint32{0}},
		{0, 0, dir | 0o777, []uint32{Unnamed}},
		{0, 0, dir | 0o1777, []uint32{0}},
		{1000, 1000, dir | 0o775, []uint32{1000}},
		{1000, 100, dir | 0o775, []uint32{1000, Unnamed}},
		{1000, 1000, dir | 0o777, []uint32{1000, Unnamed}},
		{0, 50, link | 0o777, []uint32{0}},
		{0, 50, file | 0o664, []uint32{Unnamed}},
		{0, 50, file | 0o1664, []uint32{Unnamed}},
		{0, 50, file | 0o640, []uint32{0}},
	} {
		var u Users
		u.Add(&unix.Stat_t{Uid: tt.uid, Gid: tt.gid, Mode: tt.mode})
		if got := u.List(); !slices.Equal(got, tt.want) {
			t.Errorf("%d:%d %o: %v, want %v", tt.uid, tt.gid, tt.mode, got, tt.want)
		}
	}
}
