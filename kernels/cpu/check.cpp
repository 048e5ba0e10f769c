// check.cpp - the kernels against float64 in every thread order; the sanitizer builds run this.
#include "all.cpp"
#include <algorithm>
#include <chrono>
#include <memory>
using std::vector;
static uint64_t rs = 42;
static float rnd() {
  rs = rs * 6364136223846793005ull + 1442695040888963407ull;
  return ((int)(rs >> 40) - (1 << 23)) / (float)(1 << 23);
}
// exact-size heap buffers, so ASan sees one element too many
template <class T>
struct Buf {
  std::unique_ptr<T[]> p;
  size_t n;
  Buf(size_t n) : p(new T[n]()), n(n) {}
  operator T*() { return p.get(); }
};
static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
static int bad = 0;
static void report(const char* name, const std::string& err, double worst, double tol, double dt) {
  bool ok = err.empty() && worst <= tol;
  if (!ok) bad = 1;
  printf("%-34s order=%d seed=%llu %s max|err|=%.2e %.3fs %s\n", name, cudacpu::config.order,
         (unsigned long long)cudacpu::config.seed, ok ? "ok  " : "FAIL", worst, dt, err.c_str());
}
static void t_rms(int rows, int n, int threads) {
  Buf<bf16> x((size_t)rows * n), w(n), o((size_t)rows * n);
  for (size_t i = 0; i < x.n; i++) x[i] = __float2bfloat16(rnd() * 3);
  for (int i = 0; i < n; i++) w[i] = __float2bfloat16(1 + rnd() * .2f);
  double t = now();
  auto e = cudacpu::launch(rows, threads, 0, rms_norm_bf16, (bf16*)o, (const bf16*)x, (const bf16*)w, n, 1e-5f);
  t = now() - t;
  double worst = 0;
  for (int r = 0; r < rows; r++) {
    double s = 0;
    for (int i = 0; i < n; i++) {
      double a = __bfloat162float(x[(size_t)r * n + i]);
      s += a * a;
    }
    s = 1 / std::sqrt(s / n + 1e-5);
    for (int i = 0; i < n; i++) {
      double want = __bfloat162float(x[(size_t)r * n + i]) * s * __bfloat162float(w[i]),
             got = __bfloat162float(o[(size_t)r * n + i]);
      double d = std::fabs(want - got) / (std::fabs(want) + 1e-2);
      if (!(d <= worst)) worst = d;
    }
  }
  char nm[64];
  snprintf(nm, 64, "rms_norm %dx%d/%d", rows, n, threads);
  report(nm, e, worst, 0.006, t);
}
static void t_attn(bool prefill, vector<int> lens, vector<int> nqs, int H, int KVH) {
  const int D = 64;
  int S = lens.size(), mb = 0, nb = 1;
  for (int l : lens) {
    mb = std::max(mb, (l + 15) / 16);
    nb += (l + 15) / 16;
  }
  Buf<int> bt(S * mb), ctx(S), qs(S + 1);
  int tot = 0, maxq = 0;
  vector<int> perm(nb);
  for (int i = 0; i < nb; i++) perm[i] = i;
  for (int i = nb - 1; i > 0; i--) std::swap(perm[i], perm[(unsigned)(rnd() * 1e6 + 2e6) % (i + 1)]);
  int nx = 0;
  for (int s = 0; s < S; s++) {
    ctx[s] = lens[s];
    qs[s] = tot;
    tot += nqs[s];
    maxq = std::max(maxq, nqs[s]);
    for (int b = 0; b < mb; b++) bt[s * mb + b] = b < (lens[s] + 15) / 16 ? perm[nx++] : 1 << 28;
  }
  qs[S] = tot;
  size_t cn = (size_t)nb * 16 * KVH * D;
  Buf<bf16> q((size_t)tot * H * D), k(cn), v(cn), o((size_t)tot * H * D);
  for (size_t i = 0; i < q.n; i++) q[i] = __float2bfloat16(rnd() * 2);
  for (size_t i = 0; i < cn; i++) k[i] = v[i] = {0x7fff};  // NaN where nothing lives
  for (int s = 0; s < S; s++)
    for (int t = 0; t < lens[s]; t++)
      for (int j = 0; j < KVH * D; j++) {
        size_t a = ((size_t)bt[s * mb + t / 16] * 16 + t % 16) * KVH * D + j;
        k[a] = __float2bfloat16(rnd() * 2);
        v[a] = __float2bfloat16(rnd());
      }
  float sc = 0.125f;
  double t = now();
  std::string e;
  if (prefill)
    e = cudacpu::launch(dim3((maxq + 63) / 64, H, S), 128, 0, paged_prefill_d64, (bf16*)o, (const bf16*)q,
                        (const bf16*)k, (const bf16*)v, (const int*)bt, (const int*)ctx, (const int*)qs, mb, H, KVH,
                        sc * 1.44269504f);
  else
    e = cudacpu::launch(dim3(H, S), 128, 0, paged_decode_d64, (bf16*)o, (const bf16*)q, (const bf16*)k, (const bf16*)v,
                        (const int*)bt, (const int*)ctx, mb, H, KVH, sc);
  t = now() - t;
  double worst = 0;
  for (int s = 0; s < S; s++)
    for (int i = 0; i < nqs[s]; i++)
      for (int h = 0; h < H; h++) {
        int n = lens[s] - nqs[s] + i + 1, kh = h / (H / KVH);
        vector<double> p(n);
        double mx = -1e300, den = 0;
        size_t qo = ((size_t)(qs[s] + i) * H + h) * D;
        double acc[D] = {};
        auto at = [&](int tt) { return (((size_t)bt[s * mb + tt / 16] * 16 + tt % 16) * KVH + kh) * D; };
        for (int tt = 0; tt < n; tt++) {
          double d = 0;
          for (int j = 0; j < D; j++) d += (double)__bfloat162float(q[qo + j]) * __bfloat162float(k[at(tt) + j]);
          p[tt] = d * sc;
          mx = std::max(mx, p[tt]);
        }
        for (int tt = 0; tt < n; tt++) {
          double w = std::exp(p[tt] - mx);
          den += w;
          for (int j = 0; j < D; j++) acc[j] += w * __bfloat162float(v[at(tt) + j]);
        }
        for (int j = 0; j < D; j++) {
          double d = std::fabs(acc[j] / den - __bfloat162float(o[qo + j]));
          if (!(d <= worst)) worst = d;
        }
      }
  char nm[64];
  snprintf(nm, 64, "%s S=%d len=%d q=%d H=%d", prefill ? "prefill(mma)" : "decode", S, lens[0], nqs[0], H);
  report(nm, e, worst, 0.01, t);
}
int main(int c, char** a) {
  bool bench = c > 1 && !strcmp(a[1], "bench");
  int seeds = bench ? 1 : c > 1 ? atoi(a[1]) : 1;
  for (int o = 0; o < (bench ? 1 : 3); o++)
    for (int sd = 1; sd <= (o == 2 ? seeds : 1); sd++) {
      cudacpu::config.order = o;
      cudacpu::config.seed = sd;
      if (bench) {
        t_rms(64, 4096, 256);
        t_attn(false, {256}, {1}, 4, 4);
        t_attn(true, {256}, {256}, 4, 4);
        t_attn(true, {1024}, {1024}, 4, 4);
        t_attn(false, {1024, 777, 33, 1}, {1, 1, 1, 1}, 8, 2);
        continue;
      }
      t_rms(3, 512, 128);
      t_rms(2, 520, 96);
      t_rms(2, 4096, 1024);
      t_attn(false, {37, 1, 100}, {1, 1, 1}, 4, 2);
      t_attn(true, {37, 100, 1}, {37, 20, 1}, 2, 1);
    }
  return bad;
}
