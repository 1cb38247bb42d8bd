"""A local web page on which people judge the pairs that `decontaminate` found.

`pairs` reads them and puts them in order, `marks` shows where two texts differ, `app` answers the
page's requests, `guard` lets nobody else ask, `serve` runs it all until Ctrl-C.
"""
