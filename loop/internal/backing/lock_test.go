package backing

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestLock(t *testing.T) {
	write, read := Options{}, Options{ReadOnly: true}
	sharedWrite, sharedRead := Options{Shared: true}, Options{Shared: true, ReadOnly: true}
	for _, tt := range []struct {
		name          string
		first, second Options
		want          error
	}{
		{"two writers", write, write, unix.EBUSY},
		{"a reader beside a writer", write, read, unix.EBUSY},
		{"a writer beside a reader", read, write, unix.EBUSY},
		{"two readers", read, read, nil},
		{"a second writer who insists", write, sharedWrite, nil},
		{"a reader who insists", write, sharedRead, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := newFile(t, "file", 4096)
			first, err := openFor(t, path, tt.first)
			if err != nil {
				t.Fatal(err)
			}
			_, err = openFor(t, path, tt.second)
			if tt.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantHint(t, err, tt.want, path, "ublk-loop list FILE shows the device that has it; with {shared} two writers overwrite each other's data")
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := openFor(t, path, tt.second); err != nil {
				t.Errorf("after the first is closed: %v", err)
			}
		})
	}
}
