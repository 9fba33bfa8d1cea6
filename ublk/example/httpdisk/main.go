// Program httpdisk makes a read-only disk of an image of 1 GiB on a web server, until it
// is interrupted. Its arguments are the server and the image's path there.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"

	"github.com/ublk-loop/ublk-loop/ublk"
)

type image struct{ at *url.URL }

func (i image) ReadAt(p []byte, off int64) (int, error) {
	part := fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1)
	resp, err := http.DefaultClient.Do(&http.Request{URL: i.at, Header: http.Header{"Range": {part}}})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return 0, errors.New(resp.Status)
	}
	return io.ReadFull(resp.Body, p)
}

func main() {
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt)
	disk := image{&url.URL{Scheme: "http", Host: os.Args[1], Path: os.Args[2]}}
	if err := ublk.Serve(ctx, ublk.NewDisk(disk), ublk.ServeOptions{Params: ublk.Params{Size: 1 << 30}}); err != nil {
		log.Fatal(err)
	}
}
