package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// This file reads the key of a transfer, or the passphrase of a LUKS volume.
// Neither is ever an argument or in the environment, where others see it.

// keyOptions say where a key is. At most one place is given.
type keyOptions struct {
	file        string // a path, or - for standard input
	fd          int
	description string // of a key in the kernel's keyrings
	strict      bool
	given       map[string]bool // by flag
}

// The flags that name the place of a key.
var keyPlaces = []string{"key-file", "key-fd", "key-description"}

func (o *keyOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.file, "key-file", "", "read the key, or the passphrase of a LUKS volume, from `FILE`, all of it (- for\nstandard input)")
	f.IntVar(&o.fd, "key-fd", -1, "read it from an open descriptor, until its end")
	f.StringVar(&o.description, "key-description", "", "take it from the kernel's keyrings: the key of type user with the description `TEXT`")
	f.BoolVar(&o.strict, "strict-key", false, "refuse a key file that others can read, in place of a warning")
}

// check takes down which flags are given, and refuses what has no effect, or
// more than one place.
func (o *keyOptions) check(cmd *cobra.Command) error {
	o.given = map[string]bool{}
	cmd.Flags().Visit(func(flag *pflag.Flag) { o.given[flag.Name] = true })
	var places []string
	for _, name := range keyPlaces {
		if o.given[name] {
			places = append(places, name)
		}
	}
	switch {
	case len(places) > 1:
		return report.Usage(fmt.Errorf("--%s and --%s: one key, please", places[0], places[1]), helpHint(cmd))
	case o.strict && (!o.given["key-file"] || o.file == "-"):
		return report.Usage(errors.New("--strict-key: it is about the file of --key-file"), helpHint(cmd))
	}
	return nil
}

// isGiven reports whether a place for a key was named.
func (o *keyOptions) isGiven() bool {
	return o.given["key-file"] || o.given["key-fd"] || o.given["key-description"]
}

// read returns the key of at most limit bytes, and what is worth a warning.
func (o *keyOptions) read(limit int) (key *transfer.Secret, warnings []string, err error) {
	var what string
	switch {
	case o.given["key-description"]:
		what = "key " + o.description
		key, err = readKeyring(o.description, limit)
	case o.given["key-fd"]:
		what = fmt.Sprintf("key of descriptor %d", o.fd)
		key, err = readKeyFD(o.fd, limit)
	case o.file == "-":
		what = "key of standard input"
		key, err = readKey(os.Stdin, limit)
	default:
		what = "key file " + o.file
		key, warnings, err = o.readFile(limit)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", report.OneLine(what), err)
	}
	return key, warnings, nil
}

func (o *keyOptions) readFile(limit int) (*transfer.Secret, []string, error) {
	f, err := os.Open(o.file)
	if err != nil {
		return nil, nil, cause(err)
	}
	defer func() { _ = f.Close() }()
	var warnings []string
	exposed, err := othersCanRead(f)
	switch {
	case err != nil:
		return nil, nil, err
	case exposed != "" && o.strict:
		return nil, nil, &loop.HintError{Err: fmt.Errorf("%s: %w", exposed, unix.EACCES), Hint: "chmod 600 " + o.file}
	case exposed != "":
		warnings = []string{fmt.Sprintf("key file %s: %s", o.file, exposed)}
	}
	key, err := readKey(f, limit)
	return key, warnings, err
}

// othersCanRead says how others than root and we can read a file, "" if they
// can't.
func othersCanRead(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "", nil // read once, by us
	case st.Mode&0o077 != 0:
		return fmt.Sprintf("others have access to it (mode %04o)", st.Mode&0o7777), nil
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Sprintf("it belongs to another user (uid %d)", st.Uid), nil
	}
	return "", nil
}

func readKeyFD(fd, limit int) (*transfer.Secret, error) {
	// One of our own, so that os may close it and the caller's is left alone.
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), "key")
	defer func() { _ = f.Close() }()
	return readKey(f, limit)
}

// readKey reads all of a file.
func readKey(r io.Reader, limit int) (*transfer.Secret, error) {
	key, err := transfer.ReadSecret(r, limit)
	switch {
	case errors.Is(err, transfer.ErrTooLong):
		return nil, fmt.Errorf("more than %d bytes: %w", limit, unix.EINVAL)
	case err != nil:
		return nil, cause(err)
	case len(key.Bytes()) == 0:
		key.Close()
		return nil, fmt.Errorf("empty: %w", unix.EINVAL)
	}
	return key, nil
}

// cause returns the errno of an error that names its file, which is named
// already.
func cause(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
