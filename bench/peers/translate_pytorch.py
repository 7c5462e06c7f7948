"""Greedy and beam search with a key-value cache for transformer_pytorch.py: the search of model/generate.hpp."""
import torch
import torch.nn.functional as F


class Decoder:
    """Steps of the decoder over a cache: rows are sentences x beam."""

    def __init__(self, model, source, lengths, beam):
        self.model = model
        memory, mask = model.encode(source, lengths)
        self.mask = None if mask is None else mask.repeat_interleave(beam, 0)
        self.cross = []
        for layer in model.decoder:
            k, v = layer.cross_attention.key_value(memory).chunk(2, -1)
            split = layer.cross_attention.split
            self.cross.append((split(k).repeat_interleave(beam, 0), split(v).repeat_interleave(beam, 0)))
        self.past = [None] * len(model.decoder)
        self.tokens = 0

    def step(self, ids):
        model = self.model
        scale = model.config.width ** 0.5 if model.config.scale_embedding else 1.0
        x = (F.embedding(ids, model.embedding) * scale + model.positions[self.tokens])[:, None]
        for index, layer in enumerate(model.decoder):
            attention = layer.self_attention
            q, k, v = map(attention.split, attention.query_key_value(layer.self_norm(x)).chunk(3, -1))
            if self.past[index] is not None:
                k, v = torch.cat([self.past[index][0], k], 2), torch.cat([self.past[index][1], v], 2)
            self.past[index] = (k, v)
            out = F.scaled_dot_product_attention(q, k, v)
            x = x + attention.output(out.transpose(1, 2).reshape(x.shape))
            attention = layer.cross_attention
            q = attention.split(attention.query(layer.cross_norm(x)))
            out = F.scaled_dot_product_attention(q, *self.cross[index], self.mask)
            x = x + attention.output(out.transpose(1, 2).reshape(x.shape))
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
        self.tokens += 1
        return F.log_softmax(F.linear(model.decoder_norm(x[:, 0]), model.embedding).float(), -1)

    def reorder(self, rows):
        self.past = [(k[rows], v[rows]) for k, v in self.past]


def search(model, source, lengths, beam, alpha, limits, bos=2, eos=3):
    """The best hypothesis of each sentence, as ids without </s>."""
    decoder = Decoder(model, source, lengths, beam)
    sentences = source.shape[0]
    live = [[([], 0.0, 0)] for _ in range(sentences)]  # tokens, log probability, place
    finished = [[] for _ in range(sentences)]
    ids = torch.full((sentences * beam,), bos)
    penalty = lambda tokens: ((5 + tokens) / 6) ** alpha
    for length in range(1, max(limits) + 1):
        values, tokens = decoder.step(ids).topk(beam + 1, -1)
        values, tokens = values.tolist(), tokens.tolist()
        order, ids = list(range(sentences * beam)), [0] * (sentences * beam)
        for s in range(sentences):
            if not live[s]:
                continue
            candidates = [(total + value, history, place, token) for history, total, place in live[s]
                          for value, token in zip(values[s * beam + place], tokens[s * beam + place])]
            candidates.sort(key=lambda candidate: -candidate[0])
            following = []
            for rank, (total, history, place, token) in enumerate(candidates):
                if len(following) == beam:
                    break
                if token == eos:
                    if rank < beam:
                        finished[s].append((total / penalty(length), history))
                    continue
                order[s * beam + len(following)] = s * beam + place
                ids[s * beam + len(following)] = token
                following.append((history + [token], total, len(following)))
            if len(finished[s]) < beam and length == limits[s]:
                finished[s] += [(total / penalty(length), history) for history, total, _ in following]
            bound = following[0][1] / penalty(limits[s]) if following else 0
            settled = finished[s] and bound <= max(finished[s])[0]
            live[s] = [] if len(finished[s]) >= beam or length == limits[s] or settled else following
        if not any(live):
            break
        decoder.reorder(torch.tensor(order))
        ids = torch.tensor(ids)
    return [max(hypotheses, key=lambda h: h[0])[1] for hypotheses in finished]


@torch.no_grad()
def translate(model, sentences, beam, alpha=0.6, batch=64, eos=3, pad=0):
    """Ids of the best translation of each sentence (ids without </s>), in the order given."""
    model.eval()
    order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))
    results = [None] * len(sentences)
    for begin in range(0, len(order), batch):
        part = order[begin : begin + batch]
        lengths = torch.tensor([len(sentences[i]) + 1 for i in part])
        source = torch.full((len(part), int(lengths.max())), pad)
        for row, i in enumerate(part):
            source[row, : lengths[row]] = torch.tensor(list(sentences[i]) + [eos])
        limits = [min(model.config.max_length, 16 + 3 * len(sentences[i])) for i in part]
        for i, tokens in zip(part, search(model, source, lengths, beam, alpha, limits)):
            results[i] = tokens
    return results
