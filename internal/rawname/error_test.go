package rawname

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

// Joined errors are one text, in which a newline of a name stays a newline.
func TestError(t *testing.T) {
	open := &fs.PathError{Op: "open", Path: "/a\nb", Err: fs.ErrNotExist}
	other := errors.New("other")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{other, "other"},
		{open, "open /a\nb: file does not exist"},
		{errors.Join(open, other), "open /a\nb: file does not exist; other"},
		{fmt.Errorf("attach /a\nb: %w", errors.Join(other, open)), "attach /a\nb: other; open /a\nb: file does not exist"},
		{errors.Join(errors.Join(other, other), other), "other; other; other"},
		{fmt.Errorf("%w: of \n: %w", other, errors.Join(other, other)), "other: of \n: other; other"},
		{&reworded{errors.Join(other, other)}, "a\nb"},
		{errors.New("a\xff\nb"), "a\\xff\nb"},
	} {
		if got := Error(tt.err); got != tt.want {
			t.Errorf("%q is %q, want %q", tt.err, got, tt.want)
		}
	}
}

// reworded is an error whose text lacks that of the error it wraps.
type reworded struct{ err error }

func (*reworded) Error() string   { return "a\nb" }
func (r *reworded) Unwrap() error { return r.err }
