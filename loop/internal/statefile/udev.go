package statefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// udevPath returns the path of the file from which udev imports a device's properties
// (61-ublk-loop.rules). udev must not ask the server, which waits for udev.
func udevPath(id uint32) string {
	return filepath.Join(Dir, strconv.FormatUint(uint64(id), 10)+".udev")
}

// writeUdev writes the properties of a device of one file. Other devices have none, and the file of
// an earlier device with the number must not stay: another program may have deleted that device.
func (r *Record) writeUdev() error {
	text := r.udevProperties()
	if text == "" {
		return removeUdev(r.Status.ID)
	}
	if err := replace(udevPath(r.Status.ID), []byte(text)); err != nil {
		return fmt.Errorf("write udev's properties: %w", err)
	}
	return nil
}

// udevProperties returns the properties, one a line.
func (r *Record) udevProperties() string {
	text := ""
	if s := r.Status; s.FileDevice != "" && s.FileInode != 0 && !s.FileIsDisk {
		text += fmt.Sprintf("UBLK_LOOP_INODE=%s-%d\n", s.FileDevice, s.FileInode)
	}
	if r.Config.Ref != "" {
		text += "UBLK_LOOP_REF_ENC=" + encodeName(r.Config.Ref) + "\n"
	}
	return text
}

// encodeName encodes a text for the name of a link, as udev does (encode_devnode_name in
// systemd): letters, digits, some signs and characters beyond ASCII stay, and other bytes
// become \xNN.
func encodeName(text string) string {
	var b strings.Builder
	for _, c := range text {
		if c >= utf8.RuneSelf || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.ContainsRune("#+-.:=@_", c) {
			b.WriteRune(c)
			continue
		}
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	return b.String()
}

// removeUdev removes the properties of a device, and an unfinished write.
func removeUdev(id uint32) error {
	for _, path := range []string{udevPath(id) + newSuffix, udevPath(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove udev's properties: %w", err)
		}
	}
	return nil
}
