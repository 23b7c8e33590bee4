"""The C of the amalgamation that is the same for every model: one function an operation, and a main that reads CSV."""

from __future__ import annotations

AFFINE = """\
static void affine(const real *x, real *y, int rows, int n, int m, const real *weight, const real *bias)
{
    int r, i, j;
    for (r = 0; r < rows; r++, x += n, y += m)
        for (i = 0; i < m; i++) {
            const real *w = weight + (size_t)i * (size_t)n;
            real sum = bias[i];
            for (j = 0; j < n; j++)
                sum += w[j] * x[j];
            y[i] = sum;
        }
}
"""

RELU = """\
static void relu(const real *x, real *y, int n)
{
    int i;
    for (i = 0; i < n; i++)
        y[i] = x[i] < 0 ? 0 : x[i];
}
"""

TANH = """\
static void hyperbolic(const real *x, real *y, int n)
{
    int i;
    for (i = 0; i < n; i++)
        y[i] = TANH(x[i]);
}
"""

SIGMOID = """\
static real sigmoid(real x)
{
    return 1 / (1 + EXP(-x));
}
"""

SIGMOIDS = """\
static void sigmoids(const real *x, real *y, int n)
{
    int i;
    for (i = 0; i < n; i++)
        y[i] = sigmoid(x[i]);
}
"""

UNIT = """\
static void unit(const real *x, real *y, int n, real factor, real shift)
{
    int i;
    for (i = 0; i < n; i++)
        y[i] = x[i] * factor + shift;
}
"""

# g: channels, height, width, window, stride and padding of what is slid over.
CONVOLUTION = """\
static void convolution(const real *x, real *y, const int *g, int m, const real *weight, const real *bias)
{
    int n = g[0], high = g[1], wide = g[2], o, c, i, j, k, l;
    int rows = (high + 2 * g[7] - g[3]) / g[5] + 1, columns = (wide + 2 * g[8] - g[4]) / g[6] + 1;
    for (o = 0; o < m; o++)
        for (i = 0; i < rows; i++)
            for (j = 0; j < columns; j++) {
                const real *w = weight + (size_t)o * (size_t)(n * g[3] * g[4]);
                real sum = bias[o];
                for (c = 0; c < n; c++)
                    for (k = 0; k < g[3]; k++) {
                        int row = i * g[5] + k - g[7];
                        for (l = 0; l < g[4]; l++, w++) {
                            int column = j * g[6] + l - g[8];
                            if (row >= 0 && row < high && column >= 0 && column < wide)
                                sum += *w * x[(c * high + row) * wide + column];
                        }
                    }
                *y++ = sum;
            }
}
"""

MAX_POOL = """\
static void max_pool(const real *x, real *y, const int *g)
{
    int high = g[1], wide = g[2], c, i, j, k, l;
    int rows = (high - g[3]) / g[5] + 1, columns = (wide - g[4]) / g[6] + 1;
    for (c = 0; c < g[0]; c++)
        for (i = 0; i < rows; i++)
            for (j = 0; j < columns; j++) {
                const real *from = x + (c * high + i * g[5]) * wide + j * g[6];
                real most = *from;
                for (k = 0; k < g[3]; k++)
                    for (l = 0; l < g[4]; l++)
                        if (from[k * wide + l] > most)
                            most = from[k * wide + l];
                *y++ = most;
            }
}
"""

EMBEDDING = """\
static int embedding(const real *x, real *y, int length, int tokens, int width, const real *table)
{
    int i, j;
    for (i = 0; i < length; i++) {
        if (!(x[i] >= 0 && x[i] < (real)tokens))
            return -1;
        for (j = 0; j < width; j++)
            *y++ = table[(size_t)x[i] * (size_t)width + (size_t)j];
    }
    return 0;
}
"""

# state: the cell (h), then the gates (4h).
LSTM = """\
static void lstm(const real *x, real *y, real *state, int length, int n, int h, const real *from_input,
                 const real *from_state, const real *bias)
{
    real *cell = state, *gate = state + h;
    int t, i, j;
    for (i = 0; i < h; i++)
        cell[i] = 0;
    for (t = 0; t < length; t++, x += n, y += h) {
        for (i = 0; i < 4 * h; i++) {
            const real *w = from_input + (size_t)i * (size_t)n, *u = from_state + (size_t)i * (size_t)h;
            real sum = bias[i];
            for (j = 0; j < n; j++)
                sum += w[j] * x[j];
            for (j = 0; t > 0 && j < h; j++)
                sum += u[j] * (y - h)[j];
            gate[i] = sum;
        }
        for (i = 0; i < h; i++) {
            cell[i] = sigmoid(gate[h + i]) * cell[i] + sigmoid(gate[i]) * TANH(gate[2 * h + i]);
            y[i] = sigmoid(gate[3 * h + i]) * TANH(cell[i]);
        }
    }
}
"""

TREES = """\
static void trees(const real *x, real *y, int k, int count, const int *roots, const int *feature,
                  const float *threshold, const int *left, const int *right, const unsigned char *default_left,
                  const float *leaf)
{
    int t, i;
    for (t = 0; t < count; t++) {
        int node = roots[t];
        while (left[node] != node) {
            float value = (float)x[feature[node]];
            int goes_left = isnan(value) ? default_left[node] : value < threshold[node];
            node = goes_left ? left[node] : right[node];
        }
        for (i = 0; i < k; i++)
            y[i] += leaf[node * k + i];
    }
}
"""

MAIN = r"""
#ifndef MEADOW_NO_MAIN
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *line = NULL;
static size_t room = 0;

static void fail(const char *what, long row, const char *about)
{
    fprintf(stderr, "row %ld: %s%s\n", row, what, about);
    exit(2);
}

static void *more(void *old, size_t bytes)
{
    void *got = realloc(old, bytes);
    if (!got)
        fail("no memory", 0, "");
    return got;
}

static int read_line(FILE *file)
{
    size_t used = 0;
    int c;
    do {
        if (used + 1 >= room)
            line = more(line, room = 2 * room + 4096);
        c = getc(file);
        line[used++] = (char)c;
    } while (c != EOF && c != '\n');
    line[--used] = 0;
    if (used && line[used - 1] == '\r')
        line[--used] = 0;
    return c != EOF || used > 0;
}

/* The next cell, which may be in quotes; NULL after the last. */
static char *next_cell(char **at)
{
    char *start = *at, *to = start, *from = start;
    if (!start)
        return NULL;
    if (*from != '"') {
        from += strcspn(from, ",");
        to = from;
    } else
        for (from++; *from && (*from != '"' || from[1] == '"'); from++) {
            from += *from == '"';
            *to++ = *from;
        }
    from += strcspn(from, ",");
    *at = *from ? from + 1 : NULL;
    *to = 0;
    return start;
}

/* Empty, NA and nan are missing values. */
static int to_number(const char *cell, double *value)
{
    char *end;
    cell += strspn(cell, " \t");
    if (!*cell || !strcmp(cell, "NA"))
        *value = NAN;
    else if (!strcmp(cell, "true") || !strcmp(cell, "false"))
        *value = *cell == 't';
    else {
        *value = strtod(cell, &end);
        return end != cell && !end[strspn(end, " \t")];
    }
    return 1;
}

/* Of the first line: which input each column is, -1 for none. Gives how many columns there are. */
static int read_header(int *header, int **places)
{
    char *copy = strcpy(more(NULL, 2 * strlen(line) + 2), line), *again = copy + strlen(line) + 1, *at, *cell;
    int columns = 0, found = 0, named, i;
    double value;
    for (strcpy(again, line), at = again; (cell = next_cell(&at)) != NULL;)
        *header |= !to_number(cell, &value);
    named = *header && MEADOW_NAMED;
    at = copy;
    while ((cell = next_cell(&at)) != NULL) {
        *places = more(*places, sizeof(int) * (size_t)(columns + 1));
        (*places)[columns] = named ? -1 : columns;
        for (i = 0; named && i < MEADOW_INPUTS; i++)
            if (!strcmp(cell, meadow_names[i])) {
                (*places)[columns] = i;
                found++;
                break;
            }
        columns++;
    }
    if (found != MEADOW_INPUTS && named)
        fail("the header has not all columns of the model, or one twice", 0, "");
    if (columns != MEADOW_INPUTS && !named)
        fail("other than so many columns", 0, ": " MEADOW_TEXT(MEADOW_INPUTS));
    free(copy);
    return columns;
}

int main(int count, char **words)
{
    static real input[MEADOW_INPUTS], output[MEADOW_OUTPUTS], work[MEADOW_WORK];
    FILE *file = count > 1 ? fopen(words[1], "r") : stdin;
    int *places = NULL, columns = 0, header = 0, i;
    char *at, *cell;
    double value;
    long row = 0;
    if (!file)
        fail("there is no file ", 0, words[1]);
    puts(meadow_header);
    while (read_line(file)) {
        if (!columns) {
            columns = read_header(&header, &places);
            if (header)
                continue;
        }
        if (!*line && columns > 1)
            continue;
        row++;
        for (at = line, i = 0; (cell = next_cell(&at)) != NULL; i++) {
            if (i >= columns)
                fail("more cells than columns", row, "");
            if (places[i] < 0)
                continue;
            if (!to_number(cell, &value))
                fail("not a number: ", row, cell);
            input[places[i]] = (real)value;
        }
        if (i < columns)
            fail("fewer cells than columns", row, "");
        if (meadow_predict(input, output, work))
            fail("a token that is not of the vocabulary", row, "");
        for (i = 0; i < MEADOW_OUTPUTS; i++) {
            if (i == 0 && MEADOW_LABELS)
                printf("%s,", meadow_labels[meadow_label(output)]);
            printf(i + 1 < MEADOW_OUTPUTS ? MEADOW_DIGITS "," : MEADOW_DIGITS "\n", (double)output[i]);
        }
    }
    free(places);
    free(line);
    return 0;
}
#endif
"""
