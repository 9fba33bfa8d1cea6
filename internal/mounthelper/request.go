package mounthelper

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/loop"
)

// Name is the name by which mount(8) executes the helper for `mount -t ublk-loop IMAGE
// DIRECTORY`.
const Name = "mount.ublk-loop"

// request is the request of mount(8).
type request struct {
	image, dir string
	fsType     string   // "" if mount(8) detects the file system
	options    []string // for the file system
	flags      []string // for mount(8)
	namespace  string   // of mounts, "" for this one
	remount    bool     // change the options of a mount; its device exists
	fake       bool     // do not mount
	verbose    bool
	nofail     bool // a missing image is no error
	config     loop.Config
	luks       bool
	key        keysource.Source
}

const hintUsage = "mount -t ublk-loop [-o OPTIONS] IMAGE DIRECTORY; ublk-loop(8) has the options"

// parse parses the arguments that mount(8) gives a helper (mount(8), EXTERNAL HELPERS):
//
//	IMAGE DIRECTORY [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE.SUBTYPE]
func parse(args []string) (*request, error) {
	if len(args) < 2 {
		return nil, hint.Add(errors.New("needs an image and a directory"), hintUsage)
	}
	r := &request{image: args[0], dir: args[1]}
	for i := 2; i < len(args); i++ {
		arg := args[i]
		switch {
		case slices.Contains([]string{"-o", "-t", "-N"}, arg) && i+1 < len(args):
			i++
			if err := r.takeValue(arg, args[i]); err != nil {
				return nil, err
			}
		case arg == "-f":
			r.fake = true
		case slices.Contains([]string{"-s", "-n", "-v"}, arg):
			r.flags = append(r.flags, arg)
			r.verbose = r.verbose || arg == "-v"
		default:
			return nil, hint.Add(fmt.Errorf("unexpected argument %q", arg), hintUsage)
		}
	}
	return r, errors.Join(r.checkSource(), r.checkKey())
}

// takeValue takes an argument with a value.
func (r *request) takeValue(arg, value string) error {
	switch arg {
	case "-t":
		_, r.fsType, _ = strings.Cut(value, ".")
	case "-N":
		r.namespace = value
	case "-o":
		for _, option := range splitOptions(value) {
			if err := r.takeOption(option); err != nil {
				return fmt.Errorf("option %s: %w", option, err)
			}
		}
	}
	return nil
}

// loopDevice is a device of the kernel's loop driver.
var loopDevice = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^/dev/loop[0-9]+$`) })

// checkSource refuses a loop device. libmount makes one of the image if the options have a
// name that means that, and gives the helper the device.
func (r *request) checkSource() error {
	if !loopDevice().MatchString(r.image) {
		return nil
	}
	err := fmt.Errorf("%s: mount(8) has made a loop device of the image", r.image)
	return hint.Add(err, "mount(8) acts on loop, offset, sizelimit, encryption and verity.* itself: use ublk.offset, ublk.sizelimit and the like")
}

// checkKey refuses a key without a use, and a transform without a key.
func (r *request) checkKey() error {
	hasTransfer := r.config.Transfer.Name != ""
	switch {
	case r.luks && hasTransfer:
		return errors.New("ublk.luks and ublk.transfer: the header defines the transfer")
	case r.key.Header != "" && !r.luks:
		return errors.New("ublk.header needs ublk.luks")
	case (r.key.Offset != 0 || r.key.Size != 0) && r.key.Kind != keysource.File:
		return errors.New("ublk.keyfile-offset and ublk.keyfile-size need ublk.key-file")
	case hasTransfer && !r.key.IsGiven():
		return errors.New("ublk.transfer needs ublk.key-file or ublk.key-description")
	case r.key.IsGiven() && !r.luks && !hasTransfer:
		return errors.New("a key needs ublk.luks or ublk.transfer")
	}
	return nil
}

// command returns the arguments of mount(8) for mounting a device.
func (r *request) command(device string) []string {
	args := r.commonArgs()
	if r.fsType != "" {
		args = append(args, "-t", r.fsType)
	}
	return append(append(args, r.optionArgs()...), "--", device, r.dir)
}

// readOnly returns the request for a read-only mount. mount(8) heeds the last of ro and rw.
func (r *request) readOnly() *request {
	reads := *r
	reads.config.ReadOnly = true
	reads.options = append(slices.Clone(r.options), "ro")
	return &reads
}

// again returns the arguments of mount(8) for a remount, without its helper (-i). With a
// source, which a remount ignores, mount(8) does not read the options of the device in fstab,
// which the file system would refuse.
func (r *request) again() []string {
	return append(append(r.commonArgs("-i"), r.optionArgs()...), "--", "none", r.dir)
}

// commonArgs returns the flags of mount(8), more flags, and the namespace.
func (r *request) commonArgs(more ...string) []string {
	args := append(slices.Clone(r.flags), more...)
	if r.namespace != "" {
		args = append(args, "-N", r.namespace)
	}
	return args
}

func (r *request) optionArgs() []string {
	if len(r.options) == 0 {
		return nil
	}
	return []string{"-o", strings.Join(r.options, ",")}
}
