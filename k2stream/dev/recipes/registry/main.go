// A schema registry for tests and development: franz-go's srfake, which with -keep plays what it was told before again when it starts.
// REGISTRY_AUTHORIZATION is the Authorization header that it asks for, if any; with -cert and -key it speaks TLS.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

type told struct {
	Method, Path string
	Body         []byte
}

func main() {
	keep := flag.String("keep", "", "file of what it was told")
	cert := flag.String("cert", "", "certificate, PEM")
	key := flag.String("key", "", "its key, PEM")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: registry [-keep FILE] [-cert FILE -key FILE] HOST:PORT")
		os.Exit(2)
	}
	handler, err := kept(fake(), *keep)
	if err == nil && *cert != "" {
		err = http.ListenAndServeTLS(flag.Arg(0), *cert, *key, handler)
	} else if err == nil {
		err = http.ListenAndServe(flag.Arg(0), handler)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func fake() http.Handler {
	options := []srfake.Option{srfake.WithGlobalCompat(sr.CompatBackward)}
	if authorization := os.Getenv("REGISTRY_AUTHORIZATION"); authorization != "" {
		options = append(options, srfake.WithAuth(authorization))
	}
	return srfake.NewRegistry(options...).Handler()
}

// kept plays the file's requests, then appends every request that changed something.
func kept(inner http.Handler, path string) (http.Handler, error) {
	if path == "" {
		return inner, nil
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewReader(file)
	for line, err := lines.ReadBytes('\n'); err == nil; line, err = lines.ReadBytes('\n') {
		var before told
		if err := json.Unmarshal(line, &before); err != nil {
			return nil, err
		}
		request := httptest.NewRequest(before.Method, before.Path, bytes.NewReader(before.Body))
		request.Header.Set("Authorization", os.Getenv("REGISTRY_AUTHORIZATION"))
		inner.ServeHTTP(httptest.NewRecorder(), request)
	}
	var one sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		defer one.Unlock()
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		inner.ServeHTTP(answer, r)
		if r.Method != http.MethodGet && answer.Code < 300 {
			line, _ := json.Marshal(told{r.Method, r.URL.RequestURI(), body})
			_, _ = file.Write(append(line, '\n'))
		}
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}), nil
}
