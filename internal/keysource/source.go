package keysource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/await"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// Kind is the kind of a key's source.
type Kind int

// These are the kinds.
const (
	Nowhere    Kind = iota
	File            // Source.File
	Descriptor      // Source.FD
	Keyring         // the kernel's keyrings, see Source.Description
)

// Source describes where a key is.
type Source struct {
	Kind        Kind
	File        string // a path, or "-" for standard input
	FD          int    // of the program's starter
	Description string // description of a key in the kernel's keyrings
	// Offset is the number of bytes before the key, and Size its length, 0 for all that
	// follows. They are for a File and an FD.
	Offset, Size uint64
	// Header is the path of a detached LUKS header, empty for none.
	Header string
	// Strict refuses a key file that other users can read. Without Strict such a file
	// only causes a warning.
	Strict bool
}

// IsGiven reports whether the source has a key.
func (s *Source) IsGiven() bool { return s.Kind != Nowhere }

// Key returns the key of a transfer, and warnings.
func (s *Source) Key(ctx context.Context) (*transfer.Secret, []string, error) {
	return s.read(ctx, transfer.MaxKeyBytes)
}

// warned is a key with warnings.
type warned struct {
	key      *transfer.Secret
	warnings []string
}

// read returns the key, which has at most limit bytes, and warnings. A file need not have an end, and
// a pipe need not have a writer.
func (s *Source) read(ctx context.Context, limit int) (*transfer.Secret, []string, error) {
	source, stdin := *s, os.Stdin
	r, err := await.Result(ctx, func() (warned, error) {
		key, warnings, err := source.readAll(stdin, limit)
		return warned{key, warnings}, err
	})
	return r.key, r.warnings, err
}

func (s *Source) readAll(stdin *os.File, limit int) (key *transfer.Secret, warnings []string, err error) {
	var what string
	switch {
	case s.Kind == Keyring:
		what = "key " + s.Description
		key, err = readKeyring(s.Description, limit)
	case s.Kind == Descriptor:
		what = fmt.Sprintf("key of descriptor %d", s.FD)
		key, err = s.readKeyFD(limit)
	case s.File == "-":
		what = "key of standard input"
		key, err = s.readPart(stdin, limit)
	default:
		what = "key file " + s.File
		key, warnings, err = s.readFile(limit)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", report.OneLine(what), err)
		if errors.Is(err, unix.ENOKEY) {
			err = hint.Add(err, "keyctl padd user '%s' @u <FILE adds it", s.Description)
		}
		return nil, nil, err
	}
	return key, warnings, nil
}

func (s *Source) readFile(limit int) (*transfer.Secret, []string, error) {
	f, err := os.Open(s.File)
	if err != nil {
		return nil, nil, errnoOf(err)
	}
	defer func() { _ = f.Close() }()
	var warnings []string
	exposed, err := OthersCanRead(f)
	switch {
	case err != nil:
		return nil, nil, err
	case exposed != "" && s.Strict:
		return nil, nil, &hint.Error{Err: fmt.Errorf("%s: %w", exposed, unix.EACCES), Hint: "chmod 600 " + s.File}
	case exposed != "":
		warnings = []string{fmt.Sprintf("key file %s: %s", s.File, exposed)}
	}
	key, err := s.readPart(f, limit)
	return key, warnings, err
}

// OthersCanRead says why users other than root and this one can read a file. It returns
// "" if they cannot.
func OthersCanRead(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "", nil // a pipe or the like, which only this process reads
	case st.Mode&0o077 != 0:
		return fmt.Sprintf("other users have access to it (mode %04o)", st.Mode&0o7777), nil
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Sprintf("it belongs to another user (uid %d)", st.Uid), nil
	}
	return "", nil
}

func (s *Source) readKeyFD(limit int) (*transfer.Secret, error) {
	if err := process.CheckInherited(s.FD); err != nil {
		return nil, err
	}
	// A duplicate, because Close would otherwise close the caller's descriptor.
	own, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), "key")
	defer func() { _ = f.Close() }()
	return s.readPart(f, limit)
}

// readPart reads the part of a file that the source names.
func (s *Source) readPart(f *os.File, limit int) (*transfer.Secret, error) {
	if err := skip(f, s.Offset); err != nil {
		return nil, err
	}
	if s.Size == 0 {
		return Read(f, limit)
	}
	if s.Size > uint64(limit) {
		return nil, fmt.Errorf("%d bytes: more than %d: %w", s.Size, limit, unix.EINVAL)
	}
	key, err := Read(io.LimitReader(f, int64(s.Size)), limit)
	if err == nil && uint64(len(key.Bytes())) < s.Size {
		err = fmt.Errorf("%d bytes, fewer than %d: %w", len(key.Bytes()), s.Size, unix.EINVAL)
		key.Close()
		return nil, err
	}
	return key, err
}

// skip goes forward in a file. It reads what cannot be skipped.
func skip(f *os.File, n uint64) error {
	if n == 0 {
		return nil
	}
	if n > math.MaxInt64 {
		return unix.EINVAL
	}
	if _, err := f.Seek(int64(n), io.SeekCurrent); err == nil {
		return nil
	}
	_, err := io.CopyN(io.Discard, f, int64(n))
	if errors.Is(err, io.EOF) {
		return nil // nothing follows, as Read finds
	}
	return errnoOf(err)
}

// Read reads a key of at most limit bytes until the end of the file.
func Read(r io.Reader, limit int) (*transfer.Secret, error) {
	key, err := transfer.ReadSecret(r, limit)
	switch {
	case errors.Is(err, transfer.ErrTooLong):
		return nil, fmt.Errorf("more than %d bytes: %w", limit, unix.EINVAL)
	case err != nil:
		return nil, errnoOf(err)
	case len(key.Bytes()) == 0:
		key.Close()
		return nil, fmt.Errorf("empty: %w", unix.EINVAL)
	}
	return key, nil
}

// errnoOf returns the errno of an error without the file's name, because the caller adds
// the name.
func errnoOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
