package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/verityfile"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

func newVerityCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verity format|verify IMAGE",
		Short: "Make or check the hash tree of an image",
		Long: "Make or check the hash tree of dm-verity for an image, with the files and options of " +
			"veritysetup(8). No device is needed.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return report.Usage(errors.New("verity: format or verify is missing"), helpHint(cmd))
			}
			return report.Usage(fmt.Errorf("verity: unknown command %q", args[0]), helpHint(cmd))
		},
		RunE: func(*cobra.Command, []string) error { return nil }, // Args refuses everything
	}
	cmd.AddCommand(newVerityFormatCommand(a), newVerityVerifyCommand(a))
	return cmd
}

// oneImage checks that the only argument is the image. Users of veritysetup(8) may also pass the tree
// and the root hash as arguments. The hint has the flags for those.
func oneImage(flags string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return report.Usage(fmt.Errorf("%s: unexpected argument %q", cmd.Name(), args[1]), flags)
		}
		return arguments(1, 1, "IMAGE")(cmd, args)
	}
}

// addLocationFlags adds the flags that both commands have.
func addLocationFlags(f *pflag.FlagSet, l *verityfile.Location) {
	f.SortFlags = false
	filledVar(f, &l.HashFile, "hash-file", "superblock and tree are in `FILE` (default: behind the data in IMAGE)")
	f.Var(optionalSizeFlag(&l.HashOffset), "hash-offset", "offset of the superblock (default: the start of --hash-file, or the end of the data)")
}

// maxListed is the maximum number of wrong blocks that verify prints.
const maxListed = 10

func newVerityVerifyCommand(a *app) *cobra.Command {
	var where verityfile.Location
	var root string
	cmd := &cobra.Command{
		Use:   "verify IMAGE --root-hash HEX|FILE",
		Short: "Check all data and the whole tree against the root hash",
		Long: "Check all data and the whole tree against the root hash. Print the first wrong blocks, and " +
			"exit with 1 if there are any.",
		Args: oneImage("the root hash is --root-hash, and the file of the tree is --hash-file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if root == "" {
				return report.Usage(errors.New("verify: --root-hash is missing"), helpHint(cmd))
			}
			where.Image = args[0]
			return a.runVerityVerify(cmd.Context(), where, root)
		},
	}
	filledVar(cmd.Flags(), &root, "root-hash", "take the root hash from `HEX|FILE`: hexadecimal digits, or a file with them")
	addLocationFlags(cmd.Flags(), &where)
	return cmd
}

// runVerityVerify checks an image, and reports the first wrong blocks.
func (a *app) runVerityVerify(ctx context.Context, where verityfile.Location, rootText string) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	root, err := verityfile.ReadRoot(rootText)
	if err != nil {
		return err
	}
	count := 0
	err = verityfile.Verify(ctx, where, root, func(b verity.Bad) bool {
		if count++; count <= maxListed {
			a.report(fmt.Errorf("verify %s: %s", where.Image, b.String()))
		}
		return true
	})
	switch {
	case err != nil:
		return report.Name(err, "verify", where.Image)
	case count == 0:
		return nil
	case count > maxListed:
		a.report(fmt.Errorf("verify %s: %d wrong blocks, of which the first %d are printed", where.Image, count, maxListed))
	}
	return report.ErrReported
}

// verityOptions are the flags of add for an image with a hash tree.
type verityOptions struct{ verityfile.Location }

// verityFlags are the flags that need --root-hash.
var verityFlags = []string{"hash-file", "hash-offset", "root-hash-signature"}

func (o *verityOptions) addFlags(f *pflag.FlagSet) {
	filledVar(f, &o.RootHash, "root-hash", "check the image against its hash tree of dm-verity, whose root hash is `HEX|FILE|auto`: hexadecimal digits, a file, or what is beside or in the image. The device is read-only unless --cow takes the changes")
	filledVar(f, &o.Signature, "root-hash-signature", "attach only if `FILE|auto`, a file or what is beside or in the image, is a PKCS#7 signature of the root hash by a certificate in /etc/verity.d, /run/verity.d or /usr/lib/verity.d")
	filledVar(f, &o.HashFile, "hash-file", "superblock and tree are in `FILE` (default: behind the data in the image)")
	f.Var(optionalSizeFlag(&o.HashOffset), "hash-offset", "offset of the superblock (default: the start of --hash-file, or the end of the data)")
}

// check refuses flags that do not fit --root-hash, or that need it.
func (o *verityOptions) check(cmd *cobra.Command) error {
	if o.RootHash == "" {
		for _, name := range verityFlags {
			if cmd.Flags().Changed(name) {
				return report.Usage(errors.New("--"+name+": --root-hash is missing"), helpHint(cmd))
			}
		}
		return nil
	}
	for _, name := range append([]string{"table"}, noTableFlags...) {
		if cmd.Flags().Changed(name) {
			return usage("--"+name, "not with --root-hash")
		}
	}
	return nil
}

// openBeside is a verityfile.Opener for paths of the user.
func openBeside(path string, flags int) (*os.File, error) {
	if flags&unix.O_DIRECTORY != 0 {
		return os.OpenFile(path, unix.O_PATH|flags, 0)
	}
	return loop.OpenPath(path)
}

// openVerity opens an image and its tree for a job. The device is that of a table with the target
// verity, or of a snapshot over it.
func (o *addOptions) openVerity(j *daemon.Job) error {
	o.config.ReadOnly = o.config.ReadOnly || o.cow.Path == ""
	image, err := o.open()
	if err != nil {
		return err
	}
	j.Name, j.Files = image.Name(), []*os.File{image}
	o.verity.Opener = openBeside
	device, err := verityfile.Open(image, &o.verity.Location)
	if err != nil {
		return err
	}
	j.Files, o.config.Table = device.Files, device.Table
	if o.cow.Path != "" {
		if err := o.addSnapshot(j, device); err != nil {
			return err
		}
	}
	for i, file := range j.Files {
		isStore := o.cow.Path != "" && i == len(j.Files)-1 // all others are only read
		j.Warnings = append(j.Warnings, o.lockWarnings(file, o.config.ReadOnly || !isStore)...)
	}
	return nil
}
