"""The methods of a `Model` that pictures have, by boxes, points or visible masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from typing_extensions import Unpack

from ...execution.session import Session
from ..requirements import require_family
from . import predicting, segmenting
from .config import NAME
from .encoding import Encoding, encode_pictures, encoding_of
from .predicting import Asked, Options, PredictKeywords
from .results import Prediction, RlePrediction


class PictureMethods:
    """The part of `amodal.runtime.model.Model` for bundles that find objects in pictures (SAMEO)."""

    session: Session

    def predict(
        self,
        image: Any,
        boxes: Any = None,
        points: Any = None,
        point_labels: Any = None,
        scores: Any = None,
        **options: Unpack[PredictKeywords],
    ) -> Prediction:
        """Finds the whole masks of a picture's objects from boxes, points or both, as a detector gives them.

        Args:
            image: RGB [h, w, 3] of any size, uint8 or floats in [0, 1]; or its `Encoding`, to ask again without
                encoding it again.
            boxes: [N, 4], corners (x1, y1, x2, y2) in pixels of the picture, which may reach beyond its border. None
                for points alone; with N = 0 the result is empty.
            points: [N, P, 2], P points (x, y) in pixels for each prompt; with boxes, they refine them.
            point_labels: [N, P], what each point is: 1 on the object, 0 beside it, -1 none; without boxes also 2 and
                3, a box's first and last corner.
            scores: [N], of whatever found the boxes; 1 if None.
            options: `select` is `best` (default; the highest expected IoU of masks 1 to 3), `first` (mask 1), `single`
                (mask 0) or `all`; `threshold`, the least logit of a mask's pixels (default 0); `batch`, the prompts in
                one call (default and most: the bundle's `boxes_at_once`); `logits=True` to return the logits too;
                `cut_points=True` to leave out the points beyond the bundle's `slots`, instead of an error.

        Raises:
            InputError: a picture, box or point that makes no sense, more points than a prompt holds, an option out of
                range, or a bundle of another family.
            MemoryBudgetError: the run would take more GPU memory than allowed.
            NonFiniteError: the logits became NaN or infinite.
        """
        require_family(self.session, "predict", NAME)
        return predicting.predict(self.session, image, Asked(boxes, points, point_labels, scores), Options(**options))

    def predict_rle(
        self,
        image: Any,
        boxes: Any = None,
        points: Any = None,
        point_labels: Any = None,
        scores: Any = None,
        **options: Unpack[PredictKeywords],
    ) -> RlePrediction:
        """Does the same for any number of prompts in bounded memory: masks are COCO's run-length encodings.

        `select="all"` and `logits` are refused. Otherwise as `predict`.
        """
        require_family(self.session, "predict_rle", NAME)
        asked = Asked(boxes, points, point_labels, scores)
        return predicting.predict_rle(self.session, image, asked, Options(**options))

    def predict_pieces(
        self,
        image: Any,
        boxes: Any = None,
        points: Any = None,
        point_labels: Any = None,
        scores: Any = None,
        **options: Unpack[PredictKeywords],
    ) -> Iterator[Prediction]:
        """Does the same piece by piece: yields the results of `batch` prompts at a time, in order.

        Prompts are checked and the picture is encoded before this returns. Otherwise as `predict`.
        """
        require_family(self.session, "predict_pieces", NAME)
        asked = Asked(boxes, points, point_labels, scores)
        return predicting.predict_pieces(self.session, image, asked, Options(**options))

    def predict_from_masks(
        self,
        image: Any,
        modal: Any,
        points: int = 0,
        unite: bool = True,
        scores: Any = None,
        **options: Unpack[PredictKeywords],
    ) -> Prediction:
        """Finds the whole masks of a picture's objects from their visible ones, whose boxes are the prompts.

        Args:
            modal: visible masks [N, h, w] of the picture's size, one object each: bool, integers with one value besides
                0, or soft masks as in `segment`. One without pixels gets an empty mask, and the expected IoU 0.
            points: on each visible mask, that are added to its box: the first deepest inside, the others far apart.
            unite: add what is visible to the results.

        The other arguments and the errors are those of `predict`.
        """
        require_family(self.session, "predict_from_masks", NAME)
        return segmenting.predict_from_masks(self.session, image, modal, points, unite, scores, Options(**options))

    def encode(self, image: Any) -> Encoding:
        """Encodes a picture once, for any number of calls of `predict`, `predict_rle` and `predict_from_masks`.

        It stays on the model's device as long as it is kept (`Encoding.bytes`); raises as `predict` for pictures.
        """
        require_family(self.session, "encode", NAME)
        return encoding_of(self.session, image)

    def encode_images(self, images: Iterable[Any]) -> Iterator[Encoding]:
        """Encodes pictures of any sizes as they come, several in one call on a GPU; yields them in order."""
        require_family(self.session, "encode_images", NAME)
        return encode_pictures(self.session, images)
