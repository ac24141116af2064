package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clientRole, in the environment, makes of this program a client in a process of its own: what it needs
// of a processor is not the server's, nor is its garbage.
const clientRole = "COPSE_BENCH_CLIENT"

func TestMain(m *testing.M) {
	role := os.Getenv(clientRole)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := beClient(role, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}

// clientLoad is a request that a client repeats, and what each of its answers holds.
type clientLoad struct{ URL, Token, Body, Want string }

// floodReport is what became of a flood.
type floodReport struct {
	Answers, Refusals int64
	Took              time.Duration
}

// client is such a process. It is told of its requests, then does one thing for each line that it is sent,
// and answers with a line.
type client struct {
	in  io.Writer
	out *json.Decoder
}

func startClient(b *testing.B, role string, loads []clientLoad) *client {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), clientRole+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	if err := json.NewEncoder(in).Encode(loads); err != nil {
		b.Fatal(err)
	}
	return &client{in, json.NewDecoder(out)}
}

func ask[T any](b *testing.B, c *client) (answer T) {
	b.Helper()
	if _, err := io.WriteString(c.in, "true\n"); err != nil {
		b.Fatal(err)
	}
	if err := c.out.Decode(&answer); err != nil {
		b.Fatal(err)
	}
	return answer
}

// beClient ends when there are no more orders. neighbours have one kind of them: ask for a spell.
func beClient(role string, in io.Reader, out io.Writer) error {
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	var given []clientLoad
	if err := orders.Decode(&given); err != nil {
		return err
	}
	var loads []*askLoad
	for _, l := range given {
		loads = append(loads, newAskLoad(l))
	}
	next := func() (bool, error) {
		var order bool
		err := orders.Decode(&order)
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return order, err
	}
	if role == "flood" {
		return flood(loads, next, answers)
	}
	for {
		order, err := next()
		if err != nil || !order {
			return err
		}
		took, err := due(loads)
		if err != nil {
			return err
		}
		if err := answers.Encode(took); err != nil {
			return err
		}
	}
}

// flood begins with the first order, and reports at the second.
func flood(loads []*askLoad, next func() (bool, error), out *json.Encoder) error {
	if _, err := next(); err != nil {
		return err
	}
	stop, failed := make(chan struct{}), make(chan error, floodConns)
	var answers, refusals atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i := range floodConns {
		wg.Go(func() {
			if err := loads[i%len(loads)].repeat(stop, &answers, &refusals); err != nil {
				failed <- err
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	if err := out.Encode("begun"); err != nil {
		return err
	}
	if _, err := next(); err != nil {
		return err
	}
	report := floodReport{answers.Load(), refusals.Load(), time.Since(start)}
	close(stop)
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return out.Encode(report)
	}
}

// askLoad is one request, and the connections that are free to send it.
type askLoad struct {
	address, want string
	request       []byte
	idle          chan *bufio.ReadWriter
}

func newAskLoad(of clientLoad) *askLoad {
	l := &askLoad{address: strings.TrimPrefix(of.URL, "http://"), want: of.Want, idle: make(chan *bufio.ReadWriter, 1000)}
	l.request = fmt.Appendf(nil, "POST /v1/authorize HTTP/1.1\r\nHost: copse\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", of.Token, len(of.Body), of.Body)
	return l
}

// once sends the request, on a connection of its own when none is free.
func (l *askLoad) once() (status int, err error) {
	var rw *bufio.ReadWriter
	select {
	case rw = <-l.idle:
	default:
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			return 0, err
		}
		rw = bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	}
	if _, err = rw.Write(l.request); err == nil {
		err = rw.Flush()
	}
	if err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(rw.Reader, nil)
	if err != nil {
		return 0, err
	}
	var text bytes.Buffer
	if _, err := io.Copy(&text, resp.Body); err != nil {
		return 0, err
	}
	if resp.StatusCode == http.StatusOK && !strings.Contains(text.String(), l.want) {
		return 0, fmt.Errorf("no %s in %s", l.want, &text)
	}
	l.idle <- rw
	return resp.StatusCode, nil
}

// repeat sends without a pause.
func (l *askLoad) repeat(stop chan struct{}, answers, refused *atomic.Int64) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		switch status, err := l.once(); {
		case err != nil:
			return err
		case status == http.StatusOK:
			answers.Add(1)
		case status == http.StatusTooManyRequests:
			refused.Add(1)
		default:
			return fmt.Errorf("the flood is answered %d", status)
		}
	}
}

// due asks for each tenant in turn at its time for a spell, and returns what each answer took from then.
func due(loads []*askLoad) ([]time.Duration, error) {
	n := int(spell / every)
	took := make([]time.Duration, n)
	failed := make(chan error, n)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range n {
		at := start.Add(time.Duration(i) * every)
		time.Sleep(time.Until(at))
		wg.Go(func() {
			if status, err := loads[i%len(loads)].once(); err != nil || status != http.StatusOK {
				failed <- fmt.Errorf("a neighbour is answered %d, %w", status, err)
			}
			took[i] = time.Since(at)
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
		return took, nil
	}
}
