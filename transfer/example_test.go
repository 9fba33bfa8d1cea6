package transfer_test

import (
	"fmt"
	"log"
	"strings"

	"github.com/ublk-loop/ublk-loop/transfer"
)

// A sector on its way to a disk and back.
func ExampleNew() {
	file := strings.NewReader("64 bytes, in two halves that differ:" + strings.Repeat("secret ", 4))
	key, err := transfer.ReadSecret(file, 64)
	if err != nil {
		log.Fatal(err)
	}
	t, err := transfer.New(transfer.AESXTSPlain64, key, transfer.Options{SectorSize: 512})
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close() // wipes the key
	sector := make([]byte, 512)
	copy(sector, "plain text")
	t.Encrypt(sector, 7)
	fmt.Printf("on the disk: %x\n", sector[:4])
	t.Decrypt(sector, 7)
	fmt.Printf("read back: %s\n", sector[:10])
	// Output:
	// on the disk: 97cfb35f
	// read back: plain text
}
