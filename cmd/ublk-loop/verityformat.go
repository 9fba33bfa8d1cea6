package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/bytesize"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/verityfile"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// defaultSalt is the length of a random salt in bytes, as veritysetup's.
const defaultSalt = 32

func newVerityFormatCommand(a *app) *cobra.Command {
	var opts verityfile.FormatOptions
	s := &opts.Superblock
	s.Params = verity.Params{Algorithm: "sha256", DataBlockSize: 4096, HashBlockSize: 4096, Salt: make([]byte, defaultSalt)}
	_, _ = rand.Read(s.Salt) // never fails
	s.UUID = verity.NewUUID()
	cmd := &cobra.Command{
		Use:   "format IMAGE",
		Short: "Write the superblock and the tree of an image, and print the root hash",
		Long: "Write the superblock and the tree of an image, behind its data or to another file, and " +
			"print them and the root hash as veritysetup(8) does.",
		Args: oneImage("the file of the tree is --hash-file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Image = args[0]
			return a.runVerityFormat(cmd.Context(), opts)
		},
	}
	f := cmd.Flags()
	addLocationFlags(f, &opts.Location)
	f.Var(parsed(&s.Algorithm, parseVerityHash, "sha256|sha512|sha1"), "hash", "the hash (default sha256)")
	f.Var(parsed(&s.DataBlockSize, parseBlockSize, "BYTES"), "data-block-size", "size of a data block, a power of 2 from 512 to 512K (default 4K)")
	f.Var(parsed(&s.HashBlockSize, parseBlockSize, "BYTES"), "hash-block-size", "size of a hash block, a power of 2 from 512 to 512K (default 4K)")
	f.Var(parsed(&s.DataBlocks, parseBlocks, "N"), "data-blocks", "number of data blocks (default: all of IMAGE)")
	f.Var(parsed(&s.Salt, verity.ParseSalt, "HEX|-"), "salt", "salt in hexadecimal digits, or - for none (default: 32 random bytes)")
	f.Var(parsed(&s.UUID, verity.ParseUUID, "UUID"), "uuid", "UUID in the superblock (default: random)")
	filledVar(f, &opts.RootFile, "root-hash-file", "also write the root hash to `FILE`, without a newline")
	f.BoolVar(&opts.Force, "force", false, "overwrite a disk, or what a file contains at the place of the tree")
	return cmd
}

// runVerityFormat formats an image, and prints the result.
func (a *app) runVerityFormat(ctx context.Context, opts verityfile.FormatOptions) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	opts.Claim = a.claim
	r, err := verityfile.Format(ctx, opts)
	if err != nil {
		return report.Name(err, "format", opts.Image)
	}
	name := opts.HashFile
	if name == "" {
		name = opts.Image
	}
	fmt.Fprintf(a.out, "VERITY header information for %s\n%sRoot hash:      \t%s\n", report.OneLine(name), verity.Describe(&r.Superblock, r.Tree), hex.EncodeToString(r.Root))
	if !r.Appended {
		fmt.Fprintf(a.out, "Hash device size: \t%d [bytes]\n", r.Tree.End())
	}
	return nil
}

// claim keeps devices away from a file that has none, see loop.Claim.
func (a *app) claim(file *os.File, readOnly bool) (release func() error, err error) {
	release, err = loop.Claim(file, readOnly)
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, hint.Add(err, "--hash-file writes superblock and tree to another file; ublk-loop cow thaw allows writes to it, after which the stores that need it are worthless")
	case errors.Is(err, unix.EBUSY):
		return nil, hint.Add(err, "ublk-loop list FILE shows the device that has it")
	case err != nil:
		return nil, err
	}
	if os.Geteuid() != 0 { // only root can ask the driver
		return release, nil
	}
	if err := a.checkFree(file.Name(), readOnly); err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

func parseVerityHash(text string) (string, error) {
	if text != "sha256" && text != "sha512" && text != "sha1" {
		return "", fmt.Errorf("not sha256, sha512 or sha1")
	}
	return text, nil
}

func parseBlockSize(text string) (uint32, error) {
	size, err := bytesize.Parse(text)
	if err == nil && (size < verity.MinBlockSize || size > verity.MaxBlockSize || size&(size-1) != 0) {
		err = fmt.Errorf("not a power of 2 from 512 to 512K")
	}
	return uint32(size), err
}

func parseBlocks(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("not a number from 1")
	}
	return n, nil
}
