package verityfile

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// maxRootFile is the maximum size of a file with a root hash, in bytes: 128
// digits, and some white space.
const maxRootFile = 256

// ReadRoot returns a root hash: text itself if it has as many hexadecimal digits
// as the digest of a supported hash, and otherwise the contents of the file that it
// names. White space around the digits in the file does not count.
func ReadRoot(text string) ([]byte, error) {
	root, notHex := verity.ParseRoot(text)
	if notHex == nil {
		return root, nil
	}
	file, err := os.OpenFile(text, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("root hash: %w, and no file: %w", notHex, err)
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxRootFile+1))
	if err != nil {
		return nil, fmt.Errorf("root hash: %w", err)
	}
	if len(content) > maxRootFile {
		return nil, fmt.Errorf("root hash in %s: longer than %d bytes: %w", text, maxRootFile, unix.EFBIG)
	}
	if root, err = verity.ParseRoot(strings.TrimSpace(string(content))); err != nil {
		return nil, fmt.Errorf("root hash in %s: %w", text, err)
	}
	return root, nil
}
