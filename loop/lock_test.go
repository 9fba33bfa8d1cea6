package loop

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestLock(t *testing.T) {
	write, read := Config{}, Config{ReadOnly: true}
	sharedWrite, sharedRead := Config{Shared: true}, Config{Shared: true, ReadOnly: true}
	for _, tt := range []struct {
		name          string
		first, second Config
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
			wantHint(t, err, tt.want, path, "{shared}")
			if err := first.close(); err != nil {
				t.Fatal(err)
			}
			if _, err := openFor(t, path, tt.second); err != nil {
				t.Errorf("after the first is closed: %v", err)
			}
		})
	}
}
