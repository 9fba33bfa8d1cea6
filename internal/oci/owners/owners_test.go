package owners

import (
	"errors"
	"os"
	"testing"
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
